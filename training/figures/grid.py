"""Photos, the models' label maps and the ground truth, side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.visualize import palette
from training.evaluation.metrics import IGNORE_INDEX, Confusion
from training.figures.layout import add_legend, overlay, photo_grid, show

__all__ = ["draw_grid"]

UInt8Array = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer]

# With more than _MANY classes, the legend shows those with more than this share of at least one label map.
_LEAST_SHARE, _MANY = 0.005, 30


def draw_grid(
    photos: Sequence[UInt8Array],
    predictions: Mapping[str, Sequence[Labels]],
    names: Sequence[str],
    truths: Sequence[UInt8Array] | None,
) -> tuple[Any, dict[str, float]]:
    """Draw one row per photo: the photo, each model's prediction and the ground truth, with a legend.

    `predictions` has a map of classes `(H, W)` per photo for each model title, `truths` the same with a class
    or `IGNORED`, or None for photos without labels. The mIoU of each photo stands under its prediction.
    Returns the figure and each model's mIoU over these photos (NaN where nothing is scored).
    """
    count = len(names)
    confusions = {
        title: [Confusion.of(truth, labels, count) for truth, labels in zip(truths, maps, strict=True)]
        for title, maps in predictions.items()
        if truths is not None
    }
    scores = {title: sum(parts, Confusion.empty(count)).miou for title, parts in confusions.items()}
    every_map = [labels for maps in [*predictions.values(), truths or ()] for labels in maps]
    shares = np.max([_shares(labels, count) for labels in every_map], axis=0)
    shown = np.flatnonzero(shares > (_LEAST_SHARE if count > _MANY else 0))

    headings = ["photo"]
    headings += [
        f"{title}\nmIoU {_percent(scores[title])} on these photos" if scores else title
        for title in predictions
    ]
    headings += ["ground truth\ngrey: not scored"] if truths is not None else []
    figure, axes = photo_grid(headings, photos, legend=len(shown))
    for index, (row, photo) in enumerate(zip(axes, photos, strict=True)):
        show(row[0], photo)
        for tile, (title, maps) in zip(row[1:], predictions.items(), strict=False):
            show(tile, overlay(photo, maps[index], count))
            if scores:
                tile.set_xlabel(f"mIoU {_percent(confusions[title][index].miou)}", fontsize=9)
        if truths is not None:
            show(row[-1], overlay(photo, truths[index], count))
    add_legend(figure, [(names[i], palette(count)[i]) for i in shown])
    return figure, scores


def _shares(labels: Labels, count: int) -> npt.NDArray[np.float64]:
    """Return each class's share of the pixels."""
    return np.bincount(labels[labels != IGNORE_INDEX].ravel(), minlength=count)[:count] / labels.size


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f}"
