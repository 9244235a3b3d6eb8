"""PixelCLIP fine-tuning and evaluation (torch); never imported by the SDK."""
