"""The ridge map from cells to words, pulled to a start, and the anchors of words that were seen."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["places_of", "sample", "solve"]


def sample(labels: Tensor, most: int, seed: int) -> Tensor:
    """Returns the indices of at most `most` cells of each word, sorted; cells of label -1 are left out."""
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=random)
    order = order[labels[order] >= 0]
    order = order[labels[order].argsort(stable=True)]  # by word, in random order within one
    counts = labels[order].bincount()
    first = (counts.cumsum(0) - counts)[labels[order]]
    return order[torch.arange(len(order)) - first < most].sort().values


def solve(
    cells: Tensor, targets: Tensor, weights: Tensor, weight: Tensor, bias: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """Solves the weighted ridge regression from cells to targets that is pulled to a start map.

    It minimises ``Σ wᵢ |xᵢ W + b - s yᵢ|² + λ |W - W₀|² + |b - b₀|²`` with `Σ wᵢ` = 10⁵ and `s`, the mean
    length of the start's outputs (only the direction of an output matters).

    Args:
        cells: float32 `[N, 1280]`.
        targets: float32 `[N, D]`, unit rows.
        weights: `[N]`, positive.
        weight: `[1280, D]`, W₀.
        bias: `[D]`, b₀.
        penalty: λ.

    Returns:
        W and b.
    """
    scale = (cells @ weight + bias).norm(dim=-1).mean()
    start = torch.cat([weight, bias[None]])
    inputs = torch.cat([cells, torch.ones(len(cells), 1)], 1)
    weighted = inputs * (weights * (1e5 / weights.sum()))[:, None]
    gram = (weighted.T @ inputs).double()
    rest = (weighted.T @ (scale * targets - inputs @ start)).double()
    ridge = torch.full((len(gram),), penalty, dtype=torch.float64)
    ridge[-1] = 1.0
    solved = (start.double() + torch.linalg.solve(gram + ridge.diag(), rest)).float()
    return solved[:-1], solved[-1]


def places_of(embedded: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """Returns where the cells of words are: their mean embedding without that of all cells, unit rows."""
    mean = embedded.float().mean(0)
    return torch.stack([F.normalize(embedded[labels == row].float().mean(0) - mean, dim=-1) for row in rows])
