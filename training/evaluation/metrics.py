"""Mean intersection over union (mIoU), from one confusion matrix over a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["BACKGROUND", "IGNORE_INDEX", "Confusion", "plain"]

BACKGROUND = 254
"""Ground-truth value of pixels that have none of the classes. Only boundaries count there."""

IGNORE_INDEX = 255
"""Ground-truth value of pixels that are not scored."""


@dataclass(frozen=True, eq=False)
class Confusion:
    """Confusion matrix of pixels. Matrices of several photos can be added."""

    matrix: npt.NDArray[np.int64]  # (K, K): pixels by true class (row) and predicted class (column)

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        """Returns a matrix of zeros."""
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def of(cls, truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.integer], classes: int) -> Confusion:
        """Counts the pixels of one photo.

        `truth` `[H, W]` has class indices, `BACKGROUND` or `IGNORE_INDEX`; `predicted` `[H, W]` has class
        indices.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"predictions are {predicted.shape}, the truth is {truth.shape}")
        scored = (truth != IGNORE_INDEX) & (truth != BACKGROUND)
        rows, columns = truth[scored].astype(np.int64), predicted[scored].astype(np.int64)
        if rows.size and not (rows.max() < classes and columns.min() >= 0 and columns.max() < classes):
            raise ValueError(
                f"expected classes up to {classes - 1}; got {rows.max()} (truth), {columns.max()} (predicted)"
            )
        pairs = np.bincount(rows * classes + columns, minlength=classes * classes)
        return cls(pairs.reshape(classes, classes))

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.matrix + other.matrix)

    @property
    def ious(self) -> npt.NDArray[np.float64]:
        """Intersection over union of each class `(K,)`; NaN for classes without ground truth."""
        hits, truth = np.diag(self.matrix).astype(float), self.matrix.sum(axis=1)
        union = truth + self.matrix.sum(axis=0) - hits
        return np.where(truth > 0, hits / np.maximum(union, 1), np.nan)

    @property
    def miou(self) -> float:
        """Mean IoU over the classes with ground truth; NaN if there are none."""
        ious = self.ious
        return float(np.nanmean(ious)) if np.isfinite(ious).any() else math.nan

    @property
    def accuracy(self) -> float:
        """Share of scored pixels with the correct class; NaN if there are none."""
        return float(np.trace(self.matrix) / self.matrix.sum()) if self.matrix.any() else math.nan

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns all scores as JSON values; None for classes without ground truth."""
        return {
            "miou": plain(self.miou),
            "pixel_accuracy": plain(self.accuracy),
            "iou": {name: plain(iou) for name, iou in zip(names, self.ious, strict=True)},
            "confusion": self.matrix.tolist(),
        }

    def table(self, names: Sequence[str], boundary: npt.NDArray[np.float64] | None = None) -> str:
        """Returns a human-readable table in percent: each class, its most frequent confusion, the means.

        `boundary` has the boundary F-score of each class `(K,)`, NaN where there is none; None for no column.
        """
        width = max(map(len, [*names, "pixel accuracy"])) + 2
        bounds = np.full(len(names), np.nan) if boundary is None else boundary

        def line(name: str, iou: float, bound: float, rest: str) -> str:
            column = "" if boundary is None else f"{_percent(bound):>10}"
            return f"{name:<{width}}{_percent(iou):>7}{column}{rest}".rstrip()

        heading = "" if boundary is None else f"{'boundary':>10}"
        lines = [f"{'class':<{width}}{'IoU':>7}{heading}{'share':>8}  confused with"]
        total = max(self.matrix.sum(), 1)
        for i, (name, iou) in enumerate(zip(names, self.ious, strict=True)):
            row = self.matrix[i].astype(float)
            others = row.copy()
            others[i] = 0
            wrong = f"{names[int(others.argmax())]} {others.max() / row.sum():.0%}" if others.any() else ""
            lines.append(line(name, iou, bounds[i], f"{row.sum() / total:8.1%}  {wrong}"))
        mean = float(np.nanmean(bounds)) if np.isfinite(bounds).any() else math.nan
        lines.append(line("mean", self.miou, mean, ""))
        return "\n".join([*lines, f"{'pixel accuracy':<{width}}{_percent(self.accuracy):>7}"])


def plain(value: float) -> float | None:
    """Returns a number as JSON can hold it: None for NaN."""
    return float(value) if math.isfinite(value) else None


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "–"
