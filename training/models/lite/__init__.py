"""pixelclip-lite: EfficientNet-Lite0 and MiniLM with a closed-form alignment.

Fine-tuning it is in `training/method`.
"""
