"""Pictures of results: a palette, an overlay, a legend."""

import colorsys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw_overlay", "palette"]

UInt8Array = npt.NDArray[np.uint8]

_UNKNOWN_COLOUR = (90, 90, 90)
_GOLDEN_RATIO = 0.6180339887
# Legend entries are for reading; beyond this many they are not.
_LEGEND_ENTRIES = 24


def palette(count: int) -> UInt8Array:
    """`count` colours that differ: hues a golden ratio apart, in three strengths.

    Returns:
        `(count, 3)` uint8 RGB. The first colours are the same for every `count`.
    """
    colours = []
    for i in range(count):
        saturation, value = [(0.75, 0.95), (0.55, 1.0), (0.9, 0.7)][i % 3]
        colours.append(colorsys.hsv_to_rgb((0.02 + i * _GOLDEN_RATIO) % 1, saturation, value))
    return (np.array(colours).reshape(count, 3) * 255).round().astype(np.uint8)


def draw_overlay(
    image: UInt8Array,
    labels: npt.NDArray[np.unsignedinteger],
    names: Sequence[str],
    areas: dict[str, float],
    unknown: int,
    *,
    opacity: float = 0.55,
    legend: bool = True,
) -> Image.Image:
    """The picture with its regions tinted and outlined, and a legend underneath.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)`, indices into `names`, or `unknown`.
        names: K class names.
        areas: Name → share of the picture; decides which names the legend shows, largest first.
        unknown: The label without a class.
        opacity: Of the tint, 0–1.
        legend: Whether to add the legend.

    Returns:
        An RGB picture of the image's width; with a legend it is higher.
    """
    colours = palette(len(names))
    index = np.where(labels == unknown, len(names), labels)
    tint = np.concatenate([colours, np.array([_UNKNOWN_COLOUR], np.uint8)])[index]
    picture = Image.blend(Image.fromarray(image), Image.fromarray(tint), opacity)
    outlined = np.array(picture)
    outlined[_borders(index)] = 255
    picture = Image.fromarray(outlined)
    if not legend:
        return picture
    entries = [
        (name, areas[name], tuple(map(int, colours[names.index(name)]))) for name in areas if areas[name] > 0
    ]
    entries = sorted(entries, key=lambda entry: -entry[1])[:_LEGEND_ENTRIES]
    if rest := float(np.mean(labels == unknown)):
        entries.append(("unknown", rest, _UNKNOWN_COLOUR))
    return _with_legend(picture, entries)


def _borders(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    border = np.zeros(labels.shape, bool)
    border[:-1] |= labels[:-1] != labels[1:]
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return border


def _with_legend(picture: Image.Image, entries: Sequence[tuple[str, float, tuple[int, ...]]]) -> Image.Image:
    size = min(max(picture.width // 32, 12), 40)
    font = ImageFont.load_default(size)
    pad = size // 2
    x, y, placed = pad, pad, []
    for name, area, colour in entries:
        text = f"{name} {area:.0%}" if area >= 0.005 else f"{name} <1%"
        room = picture.width - 3 * size
        while font.getlength(text) > room and len(text) > 2:
            text = text[:-2] + "…"
        width = int(size + pad + font.getlength(text) + size)
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
        draw.text((x + size + pad, top + size // 2), text, fill="black", font=font, anchor="lm")
    return canvas
