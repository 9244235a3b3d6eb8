"""Photo, what the models make of it, and the truth, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.visualize import palette
from training.evaluation.metrics import IGNORED, Confusion
from training.figures.tiles import TILE, legend, over, plain, stacked, table, text_block

__all__ = ["draw_grid"]

UInt8Array = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer]

# Of many classes those are in the legend that have such a share of some picture; of few all that are in one.
_SEEN, _MANY = 0.005, 30


def draw_grid(
    photos: Sequence[UInt8Array],
    predictions: Mapping[str, Sequence[Labels]],
    names: Sequence[str],
    truths: Sequence[UInt8Array] | None,
) -> tuple[Image.Image, dict[str, float]]:
    """A row a photo: the photo, a column a model, the truth; a legend underneath.

    Args:
        photos: `(H, W, 3)` each, RGB.
        predictions: A model's title → the class of each pixel `(H, W)`, a photo each.
        names: The classes.
        truths: `(H, W)` each, a class or `IGNORED`; None for photos without labels.

    Returns:
        The picture, and each model's mIoU over these photos (NaN where nothing is scored), empty without
        truths. Under each prediction stands that of its photo.
    """
    count = len(names)
    scores = {}
    for title, found in predictions.items() if truths is not None else ():
        pairs = zip(truths or (), found, strict=True)
        scores[title] = sum(
            (Confusion.of(truth, labels, count) for truth, labels in pairs), Confusion.empty(count)
        ).miou
    headings = [["photo"]]
    headings += [[t, f"mIoU {_percent(scores[t])} on these photos"] if scores else [t] for t in predictions]
    headings += [["truth", "grey: not scored"]] if truths is not None else []
    rows, seen = [], np.zeros(count, bool)
    least = _SEEN if count > _MANY else 0.0
    for index, photo in enumerate(photos):
        truth = None if truths is None else truths[index]
        cells: list[Image.Image] = [plain(photo)]
        for found in predictions.values():
            cell = over(photo, found[index], count)
            if truth is not None:
                miou = Confusion.of(truth, found[index], count).miou
                cell = stacked([cell, text_block([f"mIoU {_percent(miou)}"], TILE)])
            cells.append(cell)
            seen |= _shares(found[index], count) > least
        if truth is not None:
            cells.append(over(photo, truth, count))
            seen |= _shares(truth, count) > least
        rows.append(cells)
    grid = table(headings, rows)
    entries = [(name, palette(count)[i]) for i, name in enumerate(names) if seen[i]]
    key = legend(entries, grid.width - 20)
    picture = Image.new("RGB", (grid.width, grid.height + key.height + 10), "white")
    picture.paste(grid)
    picture.paste(key, (10, grid.height))
    return picture, scores


def _shares(labels: Labels, count: int) -> npt.NDArray[np.float64]:
    """Share of the pixels that each class has."""
    return np.bincount(labels[labels != IGNORED].ravel(), minlength=count)[:count] / labels.size


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f}"
