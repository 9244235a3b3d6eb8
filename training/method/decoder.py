"""The mask decoder, a small network from a cluster's cosine map to its mask, and its loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.support import distributed

__all__ = ["MaskDecoder", "covered_bce"]

_GROUP = 16  # channels per group of GroupNorm


class MaskDecoder(nn.Module):
    """Upsamples each cluster's map by four, one channel in and one out. Used in training only.

    It learns sharp borders, so that the encoder need not. `width` is the number of channels at 2× (paper:
    64), with half as many at 4×: an even number up to 32, or a multiple of 32.
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
        """Return mask logits, float `[R, 4 h, 4 w]`, of cosine maps, float `[R, h, w]`."""
        first, *others = self.layers
        # On a CPU, convolutions of few channels are almost twice as fast in channels-last order.
        x = first(maps[:, None]).contiguous(memory_format=torch.channels_last)
        for layer in others:
            x = layer(x)
        return x[:, 0]


def _refine(channels: int) -> list[nn.Module]:
    """Two blocks of convolution, GroupNorm and ReLU."""
    return [
        layer
        for _ in range(2)
        for layer in (
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(max(channels // _GROUP, 1), channels),
            nn.ReLU(inplace=True),
        )
    ]


def covered_bce(logits: Tensor, targets: Tensor, covered: Tensor) -> Tensor:
    """Mean binary cross-entropy over the covered pixels of all processes: a scalar; 0 if there are none.

    Logits are float `[..., H, W]`, targets bool of that shape, and `covered` bool, broadcastable to it. Where
    no mask covers a pixel, its cluster is unknown, so it is ignored. Data-parallel training averages
    gradients over processes; that mean is the gradient of the loss over the whole batch.
    """
    weight = covered.to(logits.dtype).expand_as(logits)
    summed = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), weight, reduction="sum")
    count = distributed.total(weight.sum())
    return summed * distributed.world() / count.clamp(min=1)
