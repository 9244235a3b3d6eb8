"""Dense image encoder: uint8 pixels and word embeddings → cosine similarities of each grid cell."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DenseImageEncoder", "Tower", "grid_size"]

# CLIP's mean and deviation of RGB pixels, 0-255.
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
# PixelCLIP's protocol resizes feature maps to 64×64.
GRID_SIDE = 64


class Tower(Protocol):
    """Interface of `DenseViT` and `DenseConvNeXt`."""

    stride: int
    dim: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised pixels float `[N, 3, H, W]` → features float `[N, H/stride, W/stride, D]`."""


class DenseImageEncoder(nn.Module):
    """Normalisation (pixels in 0-255), dense tower, resizing to the grid and comparison with words.

    The grid is PixelCLIP's, with a short side of 64, or if not `resized` the tower's own.
    """

    def __init__(
        self,
        tower: Tower,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        *,
        resized: bool = True,
    ) -> None:
        super().__init__()
        self.tower = tower
        self.resized = resized
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def encode_image(self, image: Tensor) -> Tensor:
        """Maps uint8 RGB pixels `[N, H, W, 3]` to float32 unit vectors `[N, h, w, D]`."""
        features = self.tower((image.permute(0, 3, 1, 2) - self.mean) / self.std)
        if self.resized:
            size = grid_size(features.shape[1], features.shape[2])
            features = F.interpolate(
                features.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False
            ).permute(0, 2, 3, 1)
        return F.normalize(features, dim=-1)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the cosine similarity of each cell and each word.

        Args:
            image: uint8 `[N, H, W, 3]`, RGB 0-255; H, W multiples of the tower's stride.
            text: float32 `[K, D]`, unit rows.

        Returns:
            Logits float32 `[N, K, h, w]` in -1..1 and features float32 `[N, h, w, D]`, unit rows.
        """
        features = self.encode_image(image)
        return (features @ text.T).permute(0, 3, 1, 2), features


def grid_size(rows: int, columns: int) -> tuple[int, int]:
    """Returns the grid `(h, w)` for a feature map: short side 64, same aspect ratio."""
    short = min(rows, columns)
    return round(rows * GRID_SIDE / short), round(columns * GRID_SIDE / short)
