"""pixelclip-lite: EfficientNet-Lite0 and MiniLM, aligned in closed form.

Its fine-tuning is PixelCLIP's, in `training/method`.
"""
