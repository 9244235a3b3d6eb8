"""Prompts and class names on one map (t-SNE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.packages import imported
from training.figures.clusters import Clustered
from training.figures.names import Words
from training.figures.tiles import INK

__all__ = ["draw_tsne", "project"]

_SIZE = (1500, 1050)  # (W, H) of the map
_FINE = 2  # drawn that many times as large, then shrunk: Pillow draws without antialiasing
_MARGIN = 40
_LEAST = 5  # points
_PERPLEXITY = 30  # scikit-learn's, where there are points enough
_LANDSCAPE, _FAINT = (196, 198, 204), (130, 132, 140)
_SPARSE = 22  # pixels around the name of a grey dot that stay free
_LABELLED = 40  # clusters with a name on the map

Box = tuple[float, float, float, float]


def project(points: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.float32]:
    """Points in the plane such that neighbours stay neighbours (t-SNE, van der Maaten and Hinton 2008).

    Args:
        points: `(N, D)`, unit rows: then Euclidean distances are in the order of the cosines.
        seed: Of the optimiser.

    Returns:
        `(N, 2)`.

    Raises:
        PixelClipError: There are fewer than five points, they are not finite, or scikit-learn is not there.
    """
    if len(points) < _LEAST:
        raise PixelClipError(
            f"t-SNE of {len(points)} points; expected at least {_LEAST}. Give more words or a run of more "
            "clusters."
        )
    if not np.isfinite(points).all():
        raise PixelClipError("t-SNE of points that are not finite; expected finite embeddings")
    manifold = imported("sklearn.manifold")  # takes a second
    perplexity = min(_PERPLEXITY, (len(points) - 1) / 3)
    return manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)


@dataclass(frozen=True)
class _Label:
    """Text that wants a place beside a point."""

    text: str
    x: float
    y: float
    radius: float
    colour: tuple[int, ...]
    size: int


def draw_tsne(words: Words, found: Clustered, classes: Sequence[str], nearest: Sequence[str]) -> Image.Image:
    """A map of a run's clusters among words.

    Words are grey dots, a set's classes black diamonds with their names, clusters discs in their colour, the
    larger the more masks they have; the most used ones carry number and nearest name. Clusters without a mask
    are rings. Where there is much room, a grey dot has its word. A label that finds no room is left out.

    Args:
        words: The names and clusters.
        found: How often each cluster is used, and its colour.
        classes: Those of the names that are drawn as classes.
        nearest: Each cluster's nearest name.

    Raises:
        PixelClipError: See `project`.
    """
    flat = project(np.concatenate([words.embeddings, words.clusters]))
    low, high = flat.min(0), flat.max(0)
    room = np.array(_SIZE) - 2 * _MARGIN
    flat = ((flat - low) / np.maximum(high - low, 1e-9) * room + _MARGIN) * _FINE
    names, clusters = flat[: len(words.names)], flat[len(words.names) :]
    picture = Image.new("RGB", (_SIZE[0] * _FINE, _SIZE[1] * _FINE), "white")
    draw = ImageDraw.Draw(picture)
    chosen = set(classes)
    marks: list[Box] = []
    rings: list[Box] = []
    classes_first, labels, landmarks = [], [], []
    # Shuffled: lists are alphabetical, and the first words to come find room.
    for place in np.random.default_rng(0).permutation(len(names)):
        if words.names[place] not in chosen:
            x, y = names[place]
            _disc(draw, x, y, 2 * _FINE, fill=_LANDSCAPE)
            landmarks.append(_Label(words.names[place], x, y, 2 * _FINE, _FAINT, 12 * _FINE))
    largest = max(int(found.used.max()), 1)
    # Small ones on top of large ones.
    for place, cluster in enumerate(np.argsort(-found.used, kind="stable")):
        x, y = clusters[cluster]
        colour = tuple(map(int, found.colours[cluster]))
        if not found.used[cluster]:
            rings.append(_disc(draw, x, y, 4 * _FINE, outline=colour, width=_FINE))
            continue
        radius = (5 + 9 * np.sqrt(found.used[cluster] / largest)) * _FINE
        marks.append(_disc(draw, x, y, radius, fill=colour, outline="white", width=_FINE))
        if place < _LABELLED:
            labels.append(_Label(f"{cluster} {nearest[cluster]}", x, y, radius, INK, 15 * _FINE))
    for name, (x, y) in zip(words.names, names, strict=True):
        if name in chosen:
            side = 6 * _FINE
            draw.polygon([(x - side, y), (x, y - side), (x + side, y), (x, y + side)], fill="black")
            marks.append((x - side, y - side, x + side, y + side))
            classes_first.append(_Label(name, x, y, side, (0, 0, 0), 21 * _FINE))
    # In the order of what a reader looks for: rings may be written over. Some words tell where one is.
    _place(draw, [*classes_first, *labels], marks, picture.size)
    _place(draw, landmarks, marks + rings, picture.size, room=_SPARSE * _FINE)
    return picture.resize(_SIZE, Image.Resampling.LANCZOS)


def _place(
    draw: ImageDraw.ImageDraw,
    labels: Sequence[_Label],
    taken: list[Box],
    size: tuple[int, int],
    room: float = 0,
) -> None:
    """Writes each label, in their order, where nothing is `taken` within `room`; takes its place."""
    for label in labels:
        font = ImageFont.load_default(label.size)
        width, height = font.getlength(label.text), label.size * 1.1
        gap = label.radius + 3 * _FINE
        right, left, middle = label.x + gap, label.x - gap - width, label.x - width / 2
        beside, above, below = label.y - height / 2, label.y - gap - height, label.y + gap
        for x, y in [
            *((right, beside), (left, beside), (middle, above), (middle, below)),
            *((right, above), (right, below), (left, above), (left, below)),
        ]:
            box = (x, y, x + width, y + height)
            wide = (box[0] - room, box[1] - room, box[2] + room, box[3] + room)
            inside = x >= 0 and y >= 0 and box[2] <= size[0] and box[3] <= size[1]
            if inside and not any(_overlap(wide, other) for other in taken):
                taken.append(box)
                place = (x, y + height / 2)
                draw.text(
                    place,
                    label.text,
                    fill=label.colour,
                    font=font,
                    anchor="lm",
                    stroke_width=2 * _FINE,
                    stroke_fill="white",
                )
                break


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, **style: Any) -> Box:
    """Draws a disc or, without `fill`, a ring; where it is."""
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(box, **style)
    return box
