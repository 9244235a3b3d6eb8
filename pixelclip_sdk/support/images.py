"""Image files: readable formats, opening, EXIF orientation, search in folders.

Pillow reads some fifty formats. For PostScript it starts the program `gs`, and a file name says nothing about
the content. Therefore every file is opened with a list of formats.
"""

import contextlib
import functools
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from PIL import ExifTags, Image

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.files import files_below, is_file

IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Pillow's names of the readable formats. A build of Pillow may lack some of them, AVIF for example."""

RESULT_SUFFIXES = (".overlay.png", ".labels.png")
"""Name endings of the pictures that `pixelclip predict` writes. They are not read as input from a folder."""


def open_image_file(file: str | os.PathLike[str] | io.BytesIO) -> Image.Image:
    """Open an image file of one of `IMAGE_FORMATS`. Like ``PIL.Image.open``, it does not read the pixels yet.

    Raises:
        PIL.UnidentifiedImageError: The format is not in the list.
        OSError: The file cannot be read. Pillow raises further errors for damaged files.
    """
    return Image.open(file, formats=_readable())


def image_suffixes() -> frozenset[str]:
    """File name suffixes of the readable formats: lower case, with the dot, such as ``".jpg"``."""
    return frozenset(s for s, name in Image.registered_extensions().items() if name in _readable())


def find_images(folder: Path, *, recursive: bool = False) -> list[Path]:
    """List the image files of a folder in natural order (2 before 10), without hidden files.

    Raises:
        ImageError: The folder does not exist, cannot be read or has no image files.
    """
    suffixes = image_suffixes()
    try:
        if not folder.exists():
            raise ImageError(f"the folder {folder} does not exist")
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
    """The EXIF orientation, 1 to 8; 1 (upright) if it is missing or the EXIF data is damaged."""
    try:
        with ignore_warnings():
            value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's EXIF parser raises errors of many kinds.
        return 1
    return value if value in range(1, 9) else 1


class _ThreadSwitch(threading.local):
    """Stands for the module pattern of a warning filter: matches in threads that switched it on."""

    on = False

    def match(self, _module: str) -> bool:
        return self.on


_SWITCH = _ThreadSwitch()
_FILTER = ("ignore", None, Warning, _SWITCH, 0)


@contextlib.contextmanager
def ignore_warnings() -> Iterator[None]:
    """Ignores Python warnings in this thread, even if the program turns them into errors (``-W error``).

    ``warnings.catch_warnings`` would change the filters of all threads, and two threads that leave it in the
    order in which they entered would leave changed filters behind.
    """
    filters = cast(list[Any], warnings.filters)
    if not filters or filters[0] is not _FILTER:
        filters.insert(0, _FILTER)
    before, _SWITCH.on = _SWITCH.on, True
    try:
        yield
    finally:
        _SWITCH.on = before


@functools.cache
def _readable() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in IMAGE_FORMATS if name in Image.OPEN)


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Sort key that compares digits by their value."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
