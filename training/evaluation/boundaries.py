"""Boundary F-score: how closely predicted contours follow those of the ground truth.

Precision and recall of the boundary pixels of each class, as in section 2.2 of Csurka et al., "What is a good
evaluation measure for semantic segmentation?" (BMVC 2013); the F-measure of DAVIS (Perazzi et al., CVPR 2016)
is the same for one object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX, plain

__all__ = ["TOLERANCE_PX", "Boundaries"]

TOLERANCE_PX = 5
"""A boundary pixel is found if one of the other map is at most this far away, in pixels of the photo."""

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.intp]

_NEIGHBOURS = [
    (np.s_[1:], np.s_[:-1]),
    (np.s_[:-1], np.s_[1:]),
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[:, :-1], np.s_[:, 1:]),
]


@dataclass(frozen=True, eq=False)
class Boundaries:
    """Sums of precision, recall and F-score over photos, per class. Those of several photos can be added.

    Attributes:
        sums: `(3, K)`: precision, recall, F-score.
        photos: `(K,)` number of photos whose ground truth has a boundary of the class.
    """

    sums: npt.NDArray[np.float64]
    photos: npt.NDArray[np.int64]

    @classmethod
    def empty(cls, classes: int) -> Boundaries:
        """Returns sums over no photo."""
        return cls(np.zeros((3, classes)), np.zeros(classes, np.int64))

    @classmethod
    def of(cls, truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.integer], classes: int) -> Boundaries:
        """Scores the classes that the ground truth of one photo has.

        A pixel is on the boundary of a class if it has the class and one of its four neighbours has not. A
        class without any predicted boundary scores 0. Labels grow into `IGNORE_INDEX` by `TOLERANCE_PX`: this
        closes the borders that VOC leaves between objects. Boundaries in what is left do not count.

        Args:
            truth: `[H, W]` class indices, `BACKGROUND` or `IGNORE_INDEX`.
            predicted: `[H, W]` class indices.
            classes: Number of classes.
        """
        if truth.shape != predicted.shape:
            raise ValueError(f"predictions are {predicted.shape}, the truth is {truth.shape}")
        grown = _grown(truth, TOLERANCE_PX)
        known = grown != IGNORE_INDEX
        result = cls.empty(classes)
        for value in np.setdiff1d(truth, (BACKGROUND, IGNORE_INDEX)):
            true = _boundary(grown == value, known)
            if not len(true):  # The class fills the photo.
                continue
            found = _boundary(predicted == value, known)
            precision, recall = _share_near(found, true), _share_near(true, found)
            f_score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            result.sums[:, value] = precision, recall, f_score
            result.photos[value] = 1
        return result

    def __add__(self, other: Boundaries) -> Boundaries:
        return Boundaries(self.sums + other.sums, self.photos + other.photos)

    @property
    def means(self) -> npt.NDArray[np.float64]:
        """Mean precision, recall and F-score of each class over its photos, `(3, K)`; NaN without photos."""
        return np.where(self.photos, self.sums / np.maximum(self.photos, 1), np.nan)

    @property
    def f_score(self) -> float:
        """Mean F-score over the classes that have one; NaN if none has."""
        found = self.means[2]
        return float(np.nanmean(found)) if np.isfinite(found).any() else math.nan

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns all scores as JSON values; None for classes without boundaries."""
        rows = zip(("precision", "recall", "f_score"), self.means, strict=True)
        return {
            "tolerance_px": TOLERANCE_PX,
            "mean_f_score": plain(self.f_score),
            "photos": dict(zip(names, self.photos.tolist(), strict=True)),
            **{key: dict(zip(names, map(plain, row), strict=True)) for key, row in rows},
        }


def _grown(truth: npt.NDArray[np.uint8], steps: int) -> npt.NDArray[np.uint8]:
    """Lets labels grow into ignored pixels by a number of pixels."""
    grown = truth.copy()
    for _ in range(steps if (truth == IGNORE_INDEX).any() else 0):
        before = grown.copy()
        for to, source in _NEIGHBOURS:
            np.copyto(grown[to], before[source], where=grown[to] == IGNORE_INDEX)
    return grown


def _boundary(mask: Mask, known: Mask) -> Points:
    """Returns the known pixels of a mask that have a known neighbour outside of it: `(N, 2)`."""
    inside, outside = mask & known, ~mask & known
    edge = np.zeros_like(mask)
    for to, source in _NEIGHBOURS:
        edge[to] |= inside[to] & outside[source]
    return np.argwhere(edge)


def _share_near(points: Points, others: Points) -> float:
    """Returns the share of points with one of the others within `TOLERANCE_PX`; 0 if there are none."""
    if not (len(points) and len(others)):
        return 0.0
    limit = math.nextafter(TOLERANCE_PX, math.inf)  # The bound of the search is exclusive.
    distances, _ = KDTree(others).query(points, distance_upper_bound=limit)
    return float(np.isfinite(distances).mean())
