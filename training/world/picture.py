"""A few held-out scenes with their truth and what models make of them, as one picture."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from pixelclip_sdk.image import load_image
from pixelclip_sdk.visualize import palette
from training.evaluation.datasets import Dataset
from training.evaluation.open_model import Source, open_model
from training.evaluation.protocols import Whole, segment
from training.world.catalogue import CLASSES

__all__ = ["draw_scenes"]

_CELL, _LEFT, _ROW = 128, 76, 18  # pixels: a scene, the names of the rows, a line of the legend
_PER_LINE = 6


def draw_scenes(data: Dataset, models: Mapping[str, Source], count: int) -> Image.Image:
    """Photos, truth and predictions below each other, and the colours' names.

    Args:
        data: Scenes; the first are shown.
        models: Name → model.
        count: How many scenes.

    Returns:
        An RGB picture.
    """
    colours = palette(len(CLASSES))
    photos = [load_image(data.photos[index]) for index in range(count)]
    rows = {"photo": photos, "truth": [colours[data.truth(index)] for index in range(count)]}
    for name, source in models.items():
        model = open_model(source, data.classes)
        text = model.vocabulary.embeddings
        rows[name] = [colours[segment(Whole(), photo, text, model.backend, model.spec)] for photo in photos]
    height = _CELL * len(rows) + _ROW * -(-len(CLASSES) // _PER_LINE)
    picture = Image.new("RGB", (_LEFT + _CELL * count, height), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for row, (name, cells) in enumerate(rows.items()):
        draw.text((4, (row + 0.5) * _CELL), name, "black", font, anchor="lm")
        for column, cell in enumerate(cells):
            smooth = Image.Resampling.BICUBIC if name == "photo" else Image.Resampling.NEAREST
            tile = Image.fromarray(cell).resize((_CELL - 3, _CELL - 3), smooth)
            picture.paste(tile, (_LEFT + column * _CELL, row * _CELL))
    for index, name in enumerate(CLASSES):
        line, place = divmod(index, _PER_LINE)
        x, y = _LEFT + place * _CELL * count // _PER_LINE, _CELL * len(rows) + line * _ROW
        draw.rectangle((x, y + 2, x + 12, y + 14), fill=tuple(int(c) for c in colours[index]))
        draw.text((x + 18, y + 8), name, "black", font, anchor="lm")
    return picture
