"""The light mask decoder: from a cluster's cosine map to its mask."""

import torch
from torch import Tensor, nn

__all__ = ["MaskDecoder"]

_GROUP = 16  # channels that GroupNorm norms together


class MaskDecoder(nn.Module):
    """One channel in, one out, four times as large. Every cluster's map goes through it alone.

    It only exists in training: it takes the work of drawing sharp borders from the encoder, whose cosines
    then need to say no more than what is where.

    Args:
        width: Channels at 2×; half of them at 4×. A multiple of 32, or less and even. 64 in PixelCLIP.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        half = width // 2
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ConvTranspose2d(width, width, 2, stride=2),
            *_refine(width),
            nn.ConvTranspose2d(width, half, 2, stride=2),
            *_refine(half),
            nn.Conv2d(half, 1, 3, padding=1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Mask logits.

        Args:
            maps: float `[R, h, w]`, cosines in -1…1.

        Returns:
            float `[R, 4 h, 4 w]`.
        """
        first, *others = self.layers
        # With so few channels convolutions run almost twice as fast on a CPU when a pixel's lie together.
        x = first(maps[:, None]).contiguous(memory_format=torch.channels_last)
        for layer in others:
            x = layer(x)
        return x[:, 0]


def _refine(channels: int) -> list[nn.Module]:
    """Twice a convolution, GroupNorm, ReLU."""
    return [
        layer
        for _ in range(2)
        for layer in (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(max(channels // _GROUP, 1), channels),
            nn.ReLU(inplace=True),
        )
    ]
