"""Dense image encoder: uint8 pixels and word embeddings in, cosines of every grid cell out."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CLIP_MEAN", "CLIP_STD", "GRID_SIDE", "DenseImageEncoder", "Tower", "grid_size"]

# CLIP's pixel statistics, RGB, of pixels in 0-255.
CLIP_MEAN = (122.7709383, 116.7460125, 104.09373615)
CLIP_STD = (68.5005327, 66.6321579, 70.32316305)
# PixelCLIP's protocol brings every feature map to 64×64 before it compares.
GRID_SIDE = 64


class Tower(Protocol):
    """What `DenseImageEncoder` wraps: `DenseViT`, `DenseConvNeXt`."""

    stride: int
    dim: int

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised pixels float `[N, 3, H, W]` → features float `[N, H/stride, W/stride, D]`."""


class DenseImageEncoder(nn.Module):
    """What the `image_encoder.onnx` of an official model computes, by the letter of the protocol.

    Args:
        tower: The dense tower.
        mean: What the pixels are normalised by, RGB, of pixels in 0-255.
        std: Their deviation.
    """

    def __init__(
        self, tower: Tower, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
    ) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def encode_image(self, image: Tensor) -> Tensor:
        """Dense features on the protocol's grid: interpolated first, then normalised.

        Args:
            image: uint8 `[N, H, W, 3]`, RGB 0-255; H, W multiples of the tower's stride.

        Returns:
            float32 `[N, h, w, D]`, unit rows; (h, w) is `grid_size` of the feature map.
        """
        features = self.tower((image.permute(0, 3, 1, 2) - self.mean) / self.std)
        size = grid_size(features.shape[1], features.shape[2])
        features = F.interpolate(
            features.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False
        )
        return F.normalize(features.permute(0, 2, 3, 1), dim=-1)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of every cell with every word.

        Args:
            image: uint8 `[N, H, W, 3]`, RGB 0-255; H, W multiples of the tower's stride.
            text: float32 `[K, D]`, unit rows.

        Returns:
            logits float32 `[N, K, h, w]` in -1…1 and features float32 `[N, h, w, D]`, unit rows.
        """
        features = self.encode_image(image)
        return (features @ text.T).permute(0, 3, 1, 2), features


def grid_size(rows: int, columns: int) -> tuple[int, int]:
    """The grid on which a feature map is compared with words: short side 64, the map's aspect.

    For a square map that is PixelCLIP's 64×64.
    """
    short = min(rows, columns)
    return round(rows * GRID_SIDE / short), round(columns * GRID_SIDE / short)
