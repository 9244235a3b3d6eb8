"""Scales 16-bit images to 8 bits."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

from pixelclip_sdk.support.images import open_image_file

_log = logging.getLogger(__name__)

_STRIP_PIXELS = 1 << 19
_MAX_SAMPLE_VALUE = 281  # TIFF tag
# Pillow keeps the high byte of 16-bit colours. Decoding with the opposite byte order gives the low byte.
_OPPOSITE_BYTE_ORDER = {";16L": ";16B", ";16B": ";16L", ";16N": ";16B" if np.little_endian else ";16L"}


def used_bits(largest: int) -> int:
    """The smallest of the usual bit depths that holds a value; 16 for a black image."""
    return next(bits for bits in (8, 10, 12, 14, 16) if largest < 1 << bits) if largest else 16


def _guessed_bits(largest: int, name: str) -> int:
    """The bit depth of an image, guessed from its largest value; warns if it is below 16."""
    bits = used_bits(largest)
    if bits < 16:
        _log.warning(
            "%s has 16-bit values, none above %d; it is read as an image of %d bits. If it is a dark image "
            "of 16 bits, convert it to uint8 and pass the array.",
            name,
            largest,
            bits,
        )
    return bits


def eight_bit_grey(image: Image.Image, name: str) -> npt.NDArray[np.uint8]:
    """Scales a 16-bit greyscale image to 0–255."""
    values = np.asarray(image)
    bits = _stated_bits(image) or _guessed_bits(int(values.max()), name)
    levels = np.minimum(np.arange(1 << 16) >> (bits - 8), 255).astype(np.uint8)
    if _tiff_tag(image, PHOTOMETRIC_INTERPRETATION) == 0:  # Zero is white. Pillow inverts only 8-bit files.
        levels = 255 - levels
    scaled: npt.NDArray[np.uint8] = levels[values]
    return scaled


def _stated_bits(image: Image.Image) -> int | None:
    """The bit depth, 8 to 16, that a 16-bit greyscale file states; None if it states none."""
    if image.format == "JPEG2000":  # Pillow has scaled it by the stated depth.
        return 16
    largest = _tiff_tag(image, _MAX_SAMPLE_VALUE) or 0
    if largest >= 128:
        return min(largest.bit_length(), 16)
    bits = _tiff_tag(image, BITSPERSAMPLE) or 0
    return bits if 8 <= bits < 16 else None  # Of 16 bits, a camera may use fewer.


def _tiff_tag(image: Image.Image, tag: int) -> int | None:
    """The first value of a tag; None if the image is not a TIFF file or has no such number."""
    value = getattr(image, "tag_v2", {}).get(tag)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def load_scaled(image: Image.Image, file: Path | io.BytesIO | None, name: str) -> Image.Image:
    """Loads an image, and scales the colours of a 16-bit file that uses only its lowest bits.

    Of 16-bit colours, Pillow keeps the high bytes; the low bytes are read from `file`, if there is one.
    Returns `image` itself if it is of 8 bits, is greyscale or uses more than 14 bits.
    """
    tiles: list[tuple[Any, ...]] | None = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    layout = args[0] if isinstance(args, tuple) and args else args  # Such as "RGB;16B".
    image.load()
    colours, depth = (layout[:-4], layout[-4:]) if isinstance(layout, str) else ("", "")
    if depth not in _OPPOSITE_BYTE_ORDER or image.mode not in ("RGB", "RGBA"):
        return image
    if max(high for _, high in _colour_extremes(image)) >= 64:  # It uses more than 14 bits.
        return image
    if file is None or colours not in ("RGB", "RGBA", "RGBX"):
        _log.warning(
            "%s uses less than 15 of its 16 bits, and Pillow reads the upper 8. Scale it to 8 bits first.",
            name,
        )
        return image
    opposite = colours + _OPPOSITE_BYTE_ORDER[depth]
    with open_image_file(file) as low:
        tiles = low.tile  # type: ignore[attr-defined]
        for i, (*place, args) in enumerate(tiles):
            tiles[i] = (*place, (opposite, *args[1:]) if isinstance(args, tuple) else opposite)
        low.load()
        largest = max(int(values.max()) for _, values in _joined(image, low))
        bits = _guessed_bits(largest, name)
        if bits == 16:
            return image
        for place, values in _joined(image, low):  # In place: a copy of a large image takes much memory.
            scaled = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
            if image.mode == "RGBA":
                scaled.putalpha(image.crop(place).getchannel("A"))
            image.paste(scaled, place)
    return image


def _colour_extremes(image: Image.Image) -> list[tuple[int, int]]:
    return cast(list[tuple[int, int]], image.getextrema())[:3]


def _joined(high: Image.Image, low: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Any]]:
    """Yields the places of strips, and their `(h, W, 3)` 16-bit colours from the upper and lower bytes."""
    step = max(_STRIP_PIXELS // high.width, 1)
    for top in range(0, high.height, step):
        place = (0, top, high.width, min(top + step, high.height))
        upper, lower = (np.asarray(image.crop(place))[:, :, :3] for image in (high, low))
        yield place, upper.astype(np.uint16) << 8 | lower
