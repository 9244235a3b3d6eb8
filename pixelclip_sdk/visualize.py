"""Pictures of results: a palette, an overlay, a legend."""

import colorsys
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pixelclip_sdk.errors import PixelClipError

__all__ = ["draw_overlay", "palette"]

UInt8Array = npt.NDArray[np.uint8]

_UNKNOWN_COLOUR = (90, 90, 90)
_WHITE = (255, 255, 255)
# The place of white in an 8-bit palette: below 255, the label of what is unknown.
_BORDER = 254
_GOLDEN_RATIO = 0.6180339887
# So many colours the golden ratio keeps apart; of 150, a third would look like another.
_BY_HUE = 24
# Legend entries are for reading; beyond this many they are not.
_LEGEND_ENTRIES = 24
# A legend inside the picture leaves out what covers less: it comes and goes from frame to frame.
_LEGEND_AREA = 0.005


@functools.lru_cache
def palette(count: int) -> UInt8Array:
    """`count` colours that differ: hues a golden ratio apart, then whatever is farthest from all before.

    Returns:
        `(count, 3)` uint8 RGB, read-only. The first colours are the same for every `count`. There are some
        thousand, after which they repeat.
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
    """`first`, `(N, 3)` RGB 0–1, and more up to `count`, each the farthest from all before it in Oklab."""
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
    """SRGB 0–1 in Oklab, whose distances are nearly those that people see (Ottosson 2020): `(N, 3)` both."""
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
    """The picture with its regions tinted and outlined, and a legend underneath.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        labels: `(H, W)`, indices into `names`, or `unknown`.
        names: K class names.
        areas: Name → share of the picture; decides which names the legend shows, largest first.
        unknown: The label without a class.
        opacity: Of the tint, 0–1.
        legend: Whether to add the legend; ``"inside"`` puts it over the picture, without shares.

    Returns:
        An RGB picture of the image's width; with a legend underneath it is higher.

    Raises:
        PixelClipError: `opacity` is not in 0–1.
    """
    if not 0 <= opacity <= 1:
        raise PixelClipError(f"opacity is {opacity!r}; expected a number from 0 to 1")
    colours = palette(len(names))
    # Loops over bytes, and one mix for tint and borders: drawing must not cost more than finding.
    border = _borders(labels)
    share = np.maximum(border.view(np.uint8) * np.uint8(255), np.uint8(round(opacity * 255)))
    tint = _painted(labels, colours, unknown, border)
    picture = Image.composite(tint, Image.fromarray(image), Image.fromarray(share))
    if not legend:
        return picture
    found = sorted((name for name in areas if areas[name] > 0), key=lambda name: -areas[name])
    entries = [
        (name, areas[name], tuple(map(int, colours[names.index(name)]))) for name in found[:_LEGEND_ENTRIES]
    ]
    if legend == "inside":
        # In the order of the names, so that lines do not change places from frame to frame.
        entries = sorted(entries, key=lambda entry: names.index(entry[0]))
        _put_inside(picture, [(name, colour) for name, area, colour in entries if area >= _LEGEND_AREA])
        return picture
    if rest := float(np.mean(labels == unknown)):
        entries.append(("unknown", rest, _UNKNOWN_COLOUR))
    return _with_legend(picture, entries)


def _painted(
    labels: npt.NDArray[np.unsignedinteger], colours: UInt8Array, unknown: int, border: npt.NDArray[np.bool_]
) -> Image.Image:
    """Every pixel in the colour of its label, white at borders."""
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
    """`(H, W)`: where the label differs from the next one below or to the right."""
    border = np.zeros(labels.shape, bool)
    np.not_equal(labels[:-1], labels[1:], out=border[:-1])
    border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    return border


def _put_inside(picture: Image.Image, entries: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    size = min(max(picture.width // 40, 12), 40)
    y = size // 2
    for name, colour in entries:
        chip = _chip(name, colour, size)
        if y + chip.height > picture.height:
            break
        picture.paste(chip, (size // 2, y))
        y += chip.height


@functools.lru_cache(maxsize=256)
def _chip(name: str, colour: tuple[int, ...], size: int) -> Image.Image:
    """One line of a legend, `size` pixels of text. Kept: writing costs more than the rest of an overlay."""
    font = ImageFont.load_default(size)
    pad = size // 4
    chip = Image.new("RGB", (int(size + 3 * pad + font.getlength(name)), size + 2 * pad), "white")
    draw = ImageDraw.Draw(chip)
    draw.rectangle((pad, pad, pad + size, pad + size), fill=colour, outline="black")
    draw.text((2 * pad + size, chip.height // 2), name, fill="black", font=font, anchor="lm")
    return chip


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
