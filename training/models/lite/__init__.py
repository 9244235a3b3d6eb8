"""pixelclip-lite: EfficientNet-Lite0 and MiniLM, aligned in closed form. `method` fine-tunes it."""
