"""Mask pooling: one feature a mask, the mean of the dense features inside."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["pool_masks"]


def pool_masks(features: Tensor, masks: Tensor, counts: Sequence[int]) -> Tensor:
    """The mean inside every mask of the features interpolated to the masks' size.

    Interpolation and mean are both linear, so the masks are brought to the features' grid instead of the
    features to the masks': the same numbers (not an approximation), without an `[N, D, H, W]` volume, which
    for one picture of 256×256 at 512 channels is 134 MB.

    Args:
        features: float `[N, h, w, D]`, the teacher's.
        masks: bool `[M, H, W]`, the masks of all pictures, one picture's after the other's; none is empty.
        counts: How many of them each picture has, `[N]`, their sum M.

    Returns:
        float32 `[M, D]`, not normalised: the mean inside the mask (paper: mask pooling of the teacher's dense
        features, bilinear, align_corners=False).
    """
    rows = _interpolation(features.shape[1], masks.shape[1], features.device)
    columns = _interpolation(features.shape[2], masks.shape[2], features.device)
    pooled = []
    # Picture by picture: as floats the masks of a whole batch would be gigabytes.
    for feature, own in zip(features.float(), masks.split(list(counts)), strict=True):
        weights = rows @ own.float() @ columns.T
        area = weights.sum((1, 2)).clamp(min=torch.finfo(weights.dtype).tiny)
        pooled.append(weights.flatten(1) @ feature.flatten(0, 1) / area[:, None])
    return torch.cat(pooled)


def _interpolation(cells: int, pixels: int, device: torch.device) -> Tensor:
    """How much of each cell is in each pixel: float32 `[cells, pixels]`, columns sum to 1."""
    cells_alone = torch.eye(cells, device=device)[:, None]
    return F.interpolate(cells_alone, size=pixels, mode="linear", align_corners=False)[:, 0]
