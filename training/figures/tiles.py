"""Pictures in rows and columns, with headings and legends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pixelclip_sdk.postprocess import label_dtype, unknown_label
from pixelclip_sdk.visualize import draw_overlay

__all__ = ["GREY", "INK", "TILE", "legend", "over", "plain", "stacked", "table", "text_block"]

UInt8Array = npt.NDArray[np.uint8]

TILE = 360
"""Most pixels of a tile's side."""
INK, GREY = (25, 25, 28), (105, 105, 112)
_TEXT = 15  # pixels
_PAD = 10


def over(
    photo: UInt8Array, labels: npt.NDArray[np.integer], count: int, *, opacity: float = 0.6
) -> Image.Image:
    """A tile: a photo with its regions tinted in the colours of `palette` and outlined in white.

    Args:
        photo: `(H, W, 3)`, RGB.
        labels: `(h, w)` of the same aspect: 0 to `count` - 1; any other value is a pixel without a region,
            which becomes grey.
        count: Number of labels.
        opacity: Of the tint, 0-1.

    Returns:
        An RGB picture that fits into a square of `TILE` pixels.
    """
    width, height = _tile_size(photo)
    rows, columns = (
        ((np.arange(to) + 0.5) * of / to).astype(np.int64)
        for of, to in zip(labels.shape, (height, width), strict=True)
    )
    small, unknown = labels[rows][:, columns], unknown_label(count)
    small = np.where((small >= 0) & (small < count), small, unknown).astype(label_dtype(count))
    image = np.asarray(plain(photo))
    return draw_overlay(image, small, [""] * count, {}, unknown, opacity=opacity, legend=False)


def plain(photo: UInt8Array) -> Image.Image:
    """A tile: a photo `(H, W, 3)`, RGB, that fits into a square of `TILE` pixels."""
    return Image.fromarray(photo).resize(_tile_size(photo), Image.Resampling.LANCZOS)


def _tile_size(photo: UInt8Array) -> tuple[int, int]:
    """(W, H) of a photo's tile."""
    scale = TILE / max(photo.shape[:2])
    return max(round(photo.shape[1] * scale), 1), max(round(photo.shape[0] * scale), 1)


def legend(entries: Sequence[tuple[str, Sequence[int]]], width: int, *, title: str = "") -> Image.Image:
    """Names beside their colours, in lines as long as `width`.

    Args:
        entries: Text and RGB colour of each.
        width: Of the picture, in pixels.
        title: Text before them.
    """
    font = ImageFont.load_default(_TEXT)
    line = _TEXT + 8
    x, y = float(font.getlength(title) + 16 if title else 0), 0
    placed = []
    for text, colour in entries:
        text = _shortened(text, font, width - _TEXT - 6)
        needed = _TEXT + 6 + font.getlength(text)
        if x and x + needed > width:
            x, y = 0, y + line
        placed.append((x, y, text, tuple(map(int, colour))))
        x += needed + 16
    picture = Image.new("RGB", (width, y + line), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((0, line // 2), title, fill=GREY, font=font, anchor="lm")
    for left, top, text, colour in placed:
        draw.rectangle((left, top + 4, left + _TEXT, top + 4 + _TEXT), fill=colour, outline=GREY)
        draw.text((left + _TEXT + 6, top + line // 2), text, fill=INK, font=font, anchor="lm")
    return picture


def text_block(lines: Sequence[str], width: int, *, colour: tuple[int, int, int] = INK) -> Image.Image:
    """Lines of text, each cut off at `width` pixels."""
    font = ImageFont.load_default(_TEXT)
    picture = Image.new("RGB", (width, len(lines) * (_TEXT + 6)), "white")
    draw = ImageDraw.Draw(picture)
    for index, text in enumerate(lines):
        place = (0, index * (_TEXT + 6) + _TEXT // 2 + 2)
        draw.text(place, _shortened(text, font, width), fill=colour, font=font, anchor="lm")
    return picture


def stacked(parts: Sequence[Image.Image], gap: int = 4) -> Image.Image:
    """Pictures one under the other, at the left."""
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    picture = Image.new("RGB", (max(part.width for part in parts), height), "white")
    y = 0
    for part in parts:
        picture.paste(part, (0, y))
        y += part.height + gap
    return picture


def table(headings: Sequence[Sequence[str]], rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Tiles in rows and columns.

    Args:
        headings: The lines over each column.
        rows: Pictures, as many in each row as there are headings, none wider than `TILE`.

    Returns:
        RGB, on white: each column `TILE` wide, each row as high as its highest picture.
    """
    lines = max(map(len, headings))
    # The first line stands out: the others are about it.
    tops = [
        stacked(
            [
                text_block(heading[:1], TILE),
                text_block([*heading[1:], *[""] * (lines - len(heading))], TILE, colour=GREY),
            ],
            gap=0,
        )
        for heading in headings
    ]
    every = [tops, *rows]
    heights = [max(cell.height for cell in row) for row in every]
    width = len(headings) * (TILE + _PAD) + _PAD
    picture = Image.new("RGB", (width, sum(heights) + _PAD * (len(every) + 1)), "white")
    y = _PAD
    for row, height in zip(every, heights, strict=True):
        for column, cell in enumerate(row):
            picture.paste(cell, (_PAD + column * (TILE + _PAD), y))
        y += height + _PAD
    return picture


def _shortened(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, room: float) -> str:
    while font.getlength(text) > room and len(text) > 2:
        text = text[:-2] + "…"
    return text
