"""Image files: which formats are read, how one is opened, and which way up it is.

Pillow reads some fifty formats. Among them are PostScript, for which it starts the program `gs`, and formats
that it only recognises. A picture's name says nothing about its content, so every file is opened with a list
of formats.
"""

import functools
import io
import os
import re
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.files import files_below, is_file

__all__ = ["IMAGE_FORMATS", "find_images", "image_suffixes", "open_image_file", "orientation"]

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


def find_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """The image files in a folder, in natural order: 2 before 10. Hidden ones are left out.

    Args:
        folder: Where to look.
        recursive: Whether to look in the folders below it as well.

    Raises:
        ImageError: There are none, or the folder cannot be read.
    """
    suffixes = image_suffixes()
    try:
        if recursive:
            files = list(files_below(folder, suffixes))
        else:
            files = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and is_file(path)]
    except OSError as error:
        raise ImageError(f"the folder {folder} cannot be read: {error.strerror or error}") from error
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise ImageError(f"the folder {folder} has no image files; expected {', '.join(sorted(suffixes))}")
    return sorted(files, key=lambda path: (_natural(str(path.relative_to(folder))), path))


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


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort key in which runs of digits count by their value."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
