"""PixelCLIP's prompts, for models of torch and for bundles alike: no torch here."""

__all__ = ["TEMPLATES"]

# The prompt ensemble of PixelCLIP's evaluation. The last, its single prompt, has no full stop, there as here.
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
