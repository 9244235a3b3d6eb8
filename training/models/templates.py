"""PixelCLIP's prompt templates. Importing them does not import torch."""

__all__ = ["TEMPLATES"]

# The prompt ensemble of PixelCLIP's evaluation. The last one is its single prompt, without a full stop.
TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "A photo of a {} in the scene",
)
