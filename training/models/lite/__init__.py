"""pixelclip-lite: EfficientNet-Lite0 and MiniLM with a closed-form alignment. `training/method` fine-tunes it."""
