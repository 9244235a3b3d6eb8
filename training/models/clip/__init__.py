"""CLIP's ViT and ConvNeXt as dense image encoders, with CLIP's text encoder and tokenizer.

Reading weights is in `weights`, names of models are in `registry`.
"""
