"""Draws results: colours, overlay, legend."""

import colorsys
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.support.fonts import can_draw, draw_text, text_width

__all__ = ["draw_overlay", "palette"]

UInt8Array = npt.NDArray[np.uint8]

_UNKNOWN_COLOUR = (90, 90, 90)
_WHITE = (255, 255, 255)
# Index of white in an 8-bit palette. 255 is the label of unknown pixels.
_BORDER = 254
_GOLDEN_RATIO = 0.6180339887
# Number of hues a golden ratio apart that are easy to distinguish.
_BY_HUE = 24
_LEGEND_ENTRIES = 24
# Smaller areas are left out of a legend inside the image, where they would flicker from frame to frame.
_LEGEND_AREA = 0.005


@functools.lru_cache
def palette(count: int) -> UInt8Array:
    """Returns distinct colours: first hues a golden ratio apart, then the colours farthest from all others.

    Args:
        count: Number of colours.

    Returns:
        `(count, 3)` uint8 RGB, read-only. The first colours are the same for every `count`. After some
        thousand they repeat.

    Example:
        >>> palette(2).tolist()
        [[242, 82, 61], [115, 139, 255]]
    """
    strengths = [(0.75, 0.95), (0.55, 1.0), (0.9, 0.7)]
    colours = [
        colorsys.hsv_to_rgb((0.02 + i * _GOLDEN_RATIO) % 1, *strengths[i % 3])
        for i in range(min(count, _BY_HUE))
    ]
    result = np.array(colours).reshape(-1, 3)
    if count > _BY_HUE:
        result = np.resize(_farthest(result, count), (count, 3))
    result = (result * 255).round().astype(np.uint8)
    result.flags.writeable = False
    return result


def _farthest(first: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.float64]:
    """Extends a list of colours; each new one is the farthest from all before it in Oklab.

    Args:
        first: `(N, 3)` RGB, 0–1.
        count: Number of colours to return, including `first`.
    """
    levels = np.linspace(0, 1, 17)
    left = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 3)
    lightness, *plane = _oklab(left).T
    left = left[(lightness > 0.35) & (lightness < 0.93) & (np.hypot(*plane) > 0.05)]
    places, chosen = _oklab(left), list(first)
    near = np.full(len(left), np.inf)
    for place in _oklab(first):
        near = np.minimum(near, ((places - place) ** 2).sum(1))
    while len(chosen) < count and near.any():
        best = int(near.argmax())
        chosen.append(left[best])
        near = np.minimum(near, ((places - places[best]) ** 2).sum(1))
    return np.array(chosen)


def _oklab(colours: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Converts `(N, 3)` sRGB, 0–1, to Oklab, a perceptually uniform colour space (Ottosson 2020)."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    result: npt.NDArray[np.float64] = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    return result


def draw_overlay(
    image: UInt8Array,
    labels: npt.NDArray[np.unsignedinteger],
    names: Sequence[str],
    areas: dict[str, float],
    unknown: int,
    *,
    opacity: float = 0.55,
    legend: bool | Literal["inside"] = True,
) -> Image.Image:
    """Draws the classes over an image, with outlines and a legend.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)`, indices into `names`, or `unknown`.
        names: K class names.
        areas: Name → fraction of the image. The legend lists the names with the largest areas.
        unknown: The label of pixels without a class.
        opacity: Opacity of the colours, 0–1.
        legend: True adds the names and their areas below the image. ``"inside"`` draws the names over the
            image and keeps its size.

    Returns:
        An RGB image as wide as the input.

    Raises:
        PixelClipError: `opacity` is not in 0–1.
    """
    if not 0 <= opacity <= 1:
        raise PixelClipError(f"opacity is {opacity!r}; expected a number from 0 to 1")
    colours = palette(len(names))
    # One blend for colours and borders, on bytes: drawing should not take longer than segmenting.
    border = _borders(labels)
    share = np.maximum(border.view(np.uint8) * np.uint8(255), np.uint8(round(opacity * 255)))
    tint = _painted(labels, colours, unknown, border)
    picture = Image.composite(tint, Image.fromarray(image), Image.fromarray(share))
    if not legend:
        return picture
    largest = sorted((name for name in areas if areas[name] > 0), key=lambda name: -areas[name])
    shown = [(names.index(name), areas[name]) for name in largest[:_LEGEND_ENTRIES]]
    if legend == "inside":
        # In the order of the names, so that lines keep their places from frame to frame.
        lines = [
            (_printable(names[label], label), tuple(colours[label].tolist()))
            for label, area in sorted(shown)
            if area >= _LEGEND_AREA
        ]
        _draw_inside(picture, lines)
        return picture
    entries = [
        (f"{_printable(names[label], label)} {_percent(area)}", tuple(colours[label].tolist()))
        for label, area in shown
    ]
    if unknown_area := float(np.mean(labels == unknown)):
        entries.append((f"unknown {_percent(unknown_area)}", _UNKNOWN_COLOUR))
    return _with_legend(picture, entries)


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


def _draw_inside(picture: Image.Image, lines: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    """Draws a legend over the top left of an image, as many lines as fit."""
    size = min(max(picture.width // 40, 12), 40)
    y = size // 2
    for text, colour in lines:
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
    draw = ImageDraw.Draw(line)
    draw.rectangle((pad, pad, pad + size, pad + size), fill=colour, outline="black")
    draw_text(draw, (2 * pad + size, line.height // 2), text, size)
    return line


def _with_legend(picture: Image.Image, entries: Sequence[tuple[str, tuple[int, ...]]]) -> Image.Image:
    """Adds a legend of several columns below an image."""
    size = min(max(picture.width // 32, 12), 40)
    pad = size // 2
    x, y, placed = pad, pad, []
    for text, colour in entries:
        text = _shortened(text, size, picture.width - 3 * size)
        width = int(size + pad + text_width(text, size) + size)
        if x > pad and x + width > picture.width:
            x, y = pad, y + size + pad
        placed.append((x, y, text, colour))
        x += width
    canvas = Image.new("RGB", (picture.width, picture.height + y + size + pad), "white")
    canvas.paste(picture)
    draw = ImageDraw.Draw(canvas)
    for x, y, text, colour in placed:
        top = picture.height + y
        draw.rectangle((x, top, x + size, top + size), fill=colour, outline="black")
        draw_text(draw, (x + size + pad, top + size // 2), text, size)
    return canvas


def _shortened(text: str, size: int, width: int) -> str:
    """Cuts a text to a width in pixels and marks the cut by an ellipsis."""
    while text_width(text, size) > width and len(text) > 2:
        text = text[:-2] + "…"
    return text
