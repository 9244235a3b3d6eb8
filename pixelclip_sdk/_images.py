"""Image files: which formats are read, how one is opened, and which way up it is.

Pillow reads some fifty formats. Among them are PostScript, for which it starts the program `gs`, and formats
that it only recognises. A picture's name says nothing about its content, so every file is opened with a list
of formats.
"""

import functools
import io
import os
from typing import Any

from PIL import ExifTags, Image

__all__ = ["IMAGE_FORMATS", "image_suffixes", "open_image_file", "orientation"]

IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Pillow's names of the formats that are read. A build of Pillow may lack some of them, AVIF for example."""


def open_image_file(file: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    """Open an image file of one of `IMAGE_FORMATS`; the pixels are read later, as in ``PIL.Image.open``.

    Args:
        file: A path, or the content of a file.

    Raises:
        PIL.UnidentifiedImageError: It is of no format in the list.
        OSError: It cannot be read. Pillow raises further errors for damaged files.
    """
    return Image.open(file, formats=_readable())


def image_suffixes() -> frozenset[str]:
    """File name suffixes of the formats that are read, lower case with the dot, such as ``".jpg"``."""
    return frozenset(s for s, name in Image.registered_extensions().items() if name in _readable())


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if there is none or if the EXIF data is damaged."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's EXIF parser raises errors of many kinds.
        return 1
    return value if value in range(1, 9) else 1


@functools.cache
def _readable() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)
