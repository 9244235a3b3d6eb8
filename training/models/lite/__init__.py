"""pixelclip-lite: EfficientNet-Lite0 and MiniLM, joined by an alignment in closed form.

Its fine-tuning is PixelCLIP's, in `training/method`.
"""
