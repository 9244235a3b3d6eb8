"""Draws results: colours, overlay, legend."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.image import Picture, strips
from pixelclip_sdk.support.fonts import can_draw, draw_text, text_width
from pixelclip_sdk.support.images import open_image_file

__all__ = ["draw_overlay", "palette"]

UInt8Array = npt.NDArray[np.uint8]

# One row of colours: 24 hues a golden ratio apart; then each colour is the one farthest from all before it in
# the perceptually uniform colour space Oklab (Ottosson 2020).
_PALETTE = Path(__file__).parent / "assets" / "palette.png"
_UNKNOWN_COLOUR = (90, 90, 90)
_WHITE = (255, 255, 255)
# Index of white in an 8-bit palette. 255 is the label of unknown pixels.
_BORDER = 254
_LEGEND_ENTRIES = 24
# Smaller areas are left out of a legend inside the image, where they would flicker from frame to frame.
_LEGEND_AREA = 0.005


@functools.lru_cache
def palette(count: int) -> UInt8Array:
    """Returns distinct colours: `(count, 3)` uint8 RGB, read-only.

    The first colours are the same for every `count`. After some thousand they repeat.

    Examples:
        >>> palette(2).tolist()
        [[242, 82, 61], [115, 139, 255]]
    """
    with open_image_file(_PALETTE) as picture:
        colours = np.resize(np.asarray(picture)[0], (count, 3))
    colours.flags.writeable = False
    return colours


def draw_overlay(
    image: Picture,
    labels: npt.NDArray[np.unsignedinteger],
    names: Sequence[str],
    areas: dict[str, float],
    unknown: int,
    *,
    opacity: float = 0.55,
    legend: bool | Literal["inside"] = True,
    seen: dict[str, None] | None = None,
) -> Image.Image:
    """Draws the classes over an image, with outlines and a legend; see `Segmentation.plot`.

    Args:
        image: `(H, W, 3)` uint8 RGB, or a PIL image of mode RGB.
        labels: `(H, W)`, indices into `names`, or `unknown`.
        names: K class names.
        areas: Name → fraction of the image. The legend lists the names with the largest areas.
        unknown: The label of pixels without a class.
        opacity: Opacity of the colours, 0–1.
        legend: Whether, and where, to draw the names.
        seen: Names that a legend inside the image lists in any case, first those that come first; the names
            of this image are added.
    """
    if not 0 <= opacity <= 1:
        raise PixelClipError(f"opacity is {opacity!r}; expected a number from 0 to 1")
    colours = palette(len(names))
    height, width = labels.shape
    if not legend:
        return _blended(image, labels, colours, unknown, opacity, height)
    smallest, room, size = 0.0, _LEGEND_ENTRIES, min(max(width // 32, 12), 40)
    if legend == "inside":
        smallest, size = _LEGEND_AREA, min(max(width // 40, 12), 40)
        room = min((height - size // 2) // (size + 2 * (size // 4)), room)
    largest = sorted((name for name in areas if areas[name] > smallest), key=lambda name: -areas[name])
    if legend == "inside" and seen is not None:
        seen.update(dict.fromkeys(largest))
        # A copy in one step: another thread may draw another frame.
        largest = [name for name in list(seen) if name in areas]
    found = list(largest)
    if len(found) > room:  # The last line counts the others.
        del largest[max(room - 1, 1) :]
    shown = [names.index(name) for name in largest]
    if legend == "inside":
        # In the order of the names, so that lines keep their places from frame to frame.
        shown.sort()
        texts = [_printable(names[label], label) for label in shown]
    else:
        texts = [f"{_printable(names[label], label)} {_percent(areas[names[label]])}" for label in shown]
    entries = [(text, tuple(colours[label].tolist())) for text, label in zip(texts, shown, strict=True)]
    if more := len(found) - len(largest):
        entries.append((f"+{more} more", ()))
    if legend == "inside":
        picture = _blended(image, labels, colours, unknown, opacity, height)
        _draw_inside(picture, entries, size)
        return picture
    if unknown_area := float(np.mean(labels == unknown)):
        entries.append((f"unknown {_percent(unknown_area)}", _UNKNOWN_COLOUR))
    placed, below = _legend_below((height, width), entries, size)
    picture = _blended(image, labels, colours, unknown, opacity, below)
    for corner, entry in placed:
        _draw_entry(ImageDraw.Draw(picture), corner, entry, size, size // 2)
    return picture


def _blended(
    image: Picture,
    labels: npt.NDArray[np.unsignedinteger],
    colours: UInt8Array,
    unknown: int,
    opacity: float,
    height: int,
) -> Image.Image:
    """Draws classes and borders over an image, on a white canvas of a `height` from that of the image on.

    In strips: all of a large image at once would take five times its memory.
    """
    canvas = Image.new("RGB", (labels.shape[1], height), "white")
    for rows, strip in strips(image):
        # One blend for colours and borders, on bytes: drawing should not take longer than segmenting.
        border = _borders(labels[rows.start : rows.stop + 1])[: rows.stop - rows.start]
        share = np.maximum(border.view(np.uint8) * np.uint8(255), np.uint8(round(opacity * 255)))
        tint = _painted(labels[rows], colours, unknown, border)
        canvas.paste(Image.composite(tint, strip, Image.fromarray(share)), (0, rows.start))
    return canvas


def _printable(name: str, label: int) -> str:
    """Returns the name, or its label and escaped form if no font has its characters."""
    if can_draw(name):
        return name
    # For example: 3: \u732b
    escaped = [c if can_draw(c) else c.encode("ascii", "backslashreplace").decode() for c in name]
    return f"{label}: {''.join(escaped)}"


def _percent(area: float) -> str:
    return f"{area:.0%}" if area >= 0.005 else "<1%"


def _painted(
    labels: npt.NDArray[np.unsignedinteger], colours: UInt8Array, unknown: int, border: npt.NDArray[np.bool_]
) -> Image.Image:
    """Colours every pixel by its label, and borders white."""
    count = len(colours)
    if labels.dtype == np.uint8 and count < _BORDER:
        picture = Image.fromarray(np.where(border, np.uint8(_BORDER), labels))
        table = np.full((256, 3), _UNKNOWN_COLOUR, np.uint8)
        table[:count], table[_BORDER] = colours, 255
        picture.putpalette(table.tobytes())
        return picture.convert("RGB")
    index = np.where(labels == unknown, count, labels.astype(np.uint16))
    index[border] = count + 1
    return Image.fromarray(np.array([*colours, _UNKNOWN_COLOUR, _WHITE], np.uint8)[index])


def _borders(labels: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.bool_]:
    """Marks pixels with another label than the next pixel below or to the right: `(H, W)`."""
    border = np.zeros(labels.shape, bool)
    np.not_equal(labels[:-1], labels[1:], out=border[:-1])
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return border


def _draw_inside(picture: Image.Image, entries: Sequence[tuple[str, tuple[int, ...]]], size: int) -> None:
    """Draws a legend over the top left of an image, as many lines as fit."""
    y = size // 2
    for text, colour in entries:
        line = _legend_line(text, colour, size)
        if y + line.height > picture.height:
            break
        picture.paste(line, (size // 2, y))
        y += line.height


@functools.lru_cache(maxsize=256)
def _legend_line(text: str, colour: tuple[int, ...], size: int) -> Image.Image:
    """One line of a legend. Cached, because drawing text takes longer than the rest of an overlay."""
    pad = size // 4
    line = Image.new("RGB", (int(size + 3 * pad + text_width(text, size)), size + 2 * pad), "white")
    _draw_entry(ImageDraw.Draw(line), (pad, pad), (text, colour), size, pad)
    return line


def _draw_entry(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    entry: tuple[str, tuple[int, ...]],
    size: int,
    pad: int,
) -> None:
    """Draws a square of the entry's colour and, `pad` pixels to its right, its text."""
    (x, y), (text, colour) = corner, entry
    if colour:
        draw.rectangle((x, y, x + size, y + size), fill=colour, outline="black")
    draw_text(draw, (x + size + pad, y + size // 2), text, size)


_Entry: TypeAlias = tuple[str, tuple[int, ...]]


def _legend_below(
    shape: tuple[int, int], entries: Sequence[_Entry], size: int
) -> tuple[list[tuple[tuple[int, int], _Entry]], int]:
    """Places a legend of several columns below an image; returns the entries' corners and the new height."""
    height, width = shape
    pad = size // 2
    x, y, placed = pad, pad, []
    for text, colour in entries:
        # Cut off letters of names that are wider than the image.
        while text_width(text, size) > width - 3 * size and len(text) > 2:
            text = text[:-2] + "…"
        taken = int(size + pad + text_width(text, size) + size)
        if x > pad and x + taken > width:
            x, y = pad, y + size + pad
        placed.append(((x, height + y), (text, colour)))
        x += taken
    return placed, height + y + size + pad
