"""Photos, label maps and the ground truth in rows and columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.postprocess import label_dtype, unknown_label
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.packages import imported
from pixelclip_sdk.visualize import draw_overlay, palette
from training.evaluation.metrics import IGNORE_INDEX, Confusion

__all__ = ["add_legend", "draw_grid", "literal", "new_figure", "overlay", "photo_grid", "save_png", "show"]

UInt8Array = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer]

_TILE = 3.4  # inches
_TILE_PX = 480
_HEADING = 0.6  # inches
_LEGEND_LINE = 0.25  # inches
_LEGEND_COLUMN = 2.0  # inches

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
    or `IGNORE_INDEX`, or None for photos without labels. The mIoU of each photo stands under its prediction.
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


def new_figure(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure` of a size in inches, without pyplot's global state."""
    figure = imported("matplotlib.figure").Figure((width, height), dpi=110, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.08)
    imported("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    return figure


def photo_grid(headings: Sequence[str], photos: Sequence[UInt8Array], *, legend: int = 0) -> tuple[Any, Any]:
    """Return a figure and its axes `(rows, columns)`: one row per photo, one column per heading.

    Photos are `(H, W, 3)`. Under the grid is room for a legend of this many entries.
    """
    heights = [max(_TILE * photo.shape[0] / photo.shape[1], 0.2) for photo in photos]
    width = _TILE * len(headings)
    lines = -(-legend // _legend_columns(width))
    figure = new_figure(width, sum(heights) + _HEADING + 0.2 * len(photos) + _LEGEND_LINE * lines)
    ratios = {"height_ratios": heights}
    axes = figure.subplots(len(photos), len(headings), squeeze=False, gridspec_kw=ratios)
    for tile in axes.flat:
        tile.set(xticks=(), yticks=())
        tile.spines[:].set_visible(False)
    for tile, heading in zip(axes[0], headings, strict=True):
        tile.set_title(literal(heading), fontsize=11)
    return figure, axes


def show(tile: Any, picture: UInt8Array) -> None:
    """Draw a picture `(H, W, 3)` into one cell of the grid."""
    tile.imshow(_resized(picture, picture.shape[:2], Image.Resampling.LANCZOS))


def overlay(
    photo: UInt8Array, labels: npt.NDArray[np.integer], count: int, *, opacity: float = 0.6
) -> UInt8Array:
    """Return a photo, as large as a tile, with its regions tinted in the colours of `palette` and outlined.

    The photo is RGB `(H, W, 3)`; the labels are `(h, w)` of the same aspect, 0 to `count` - 1, and any other
    value is drawn grey. `opacity` of the tint is in 0-1.
    """
    unknown = unknown_label(count)
    labels = np.where((labels >= 0) & (labels < count), labels, unknown)
    small = _resized(labels.astype(np.int32), photo.shape[:2], Image.Resampling.NEAREST)
    image = _resized(photo, photo.shape[:2], Image.Resampling.LANCZOS)
    classes = small.astype(label_dtype(count))
    return np.asarray(draw_overlay(image, classes, [""] * count, {}, unknown, opacity=opacity, legend=False))


def add_legend(parent: Any, entries: Sequence[tuple[str, npt.NDArray[np.uint8]]]) -> None:
    """Add names beside their RGB colours under the grid (a figure) or under one tile (axes)."""
    if not entries:
        return
    patch = imported("matplotlib.patches").Patch
    handles = [patch(color=colour / 255, label=literal(text)) for text, colour in entries]
    if hasattr(parent, "get_size_inches"):
        columns = _legend_columns(parent.get_size_inches()[0])
        parent.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, fontsize=9)
    else:
        place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "borderaxespad": 0.2}
        parent.legend(handles=handles, **place, ncols=2, frameon=False, fontsize=7)


def save_png(figure: Any, path: Path) -> None:
    """Write a figure; equal figures give equal files."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def literal(text: str) -> str:
    """Return text that matplotlib does not read as a formula."""
    return text.replace("$", r"\$")


def _legend_columns(width: float) -> int:
    return max(int(width / _LEGEND_COLUMN), 1)


def _resized(picture: npt.NDArray[Any], size: Sequence[int], method: Image.Resampling) -> npt.NDArray[Any]:
    """Return a picture at the tile's size for a photo of `size` (H, W)."""
    scale = _TILE_PX / max(size)
    height, width = (max(round(length * scale), 1) for length in size)
    return np.asarray(Image.fromarray(picture).resize((width, height), method))
