"""Image files: readable formats, opening, EXIF orientation, search in folders.

Pillow reads some fifty formats. For PostScript it starts the program `gs`, and a file name says nothing about
the content. Therefore every file is opened with a list of formats.
"""

import contextlib
import functools
import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

from PIL import ExifTags, Image

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.files import files_below, is_file

# Format → the most bytes per pixel that reading and segmenting it needs at a time.
_BYTES: Mapping[str, float] = {
    "AVIF": 12,
    "BMP": 6.4,
    "GIF": 7.2,
    "JPEG": 6.4,
    "JPEG2000": 24,
    "MPO": 6.4,
    "PNG": 6.4,
    "PPM": 6.4,
    "TGA": 6.4,
    "TIFF": 6.4,
    "WEBP": 16.5,
}
# What costs more, whatever the format.
_COPIED, _BUFFERED = 8.0, 10.0
# `predict` then stays within 1 GB, with the model and the interpreter (docs/adr/0024).
_BUDGET = 655_000_000
_MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS or 1  # As Pillow has it when nobody changed it.

IMAGE_FORMATS = tuple(_BYTES)
"""Pillow's names of the readable formats. A build of Pillow may lack some of them, AVIF for example.
ICO is not among them: the size in its head need not be that of the picture inside."""

RESULT_SUFFIXES = (".overlay.png", ".labels.png")
"""Name endings of the pictures that `pixelclip predict` writes. They are not read as input from a folder."""


def open_image_file(file: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """Open a file of one of `IMAGE_FORMATS`. Like ``PIL.Image.open``, it reads no pixels yet.

    Raises:
        PIL.UnidentifiedImageError: The format is not in the list.
        PIL.Image.DecompressionBombError: The picture has more than `most_pixels`.
        OSError: The file cannot be read. Pillow raises further errors for damaged files.
    """
    image = Image.open(file, formats=_readable())
    try:
        refuse_too_large(image)
    except Image.DecompressionBombError:
        image.close()
        raise
    return image


def refuse_too_large(image: Image.Image, *, turned: bool = False) -> None:
    """Raises Pillow's DecompressionBombError if an opened picture has more than `most_pixels`.

    `turned`: whether it is known to be turned by EXIF, which may be found only after the pixels.
    """
    pixels = image.width * image.height
    if Image.MAX_IMAGE_PIXELS is None or pixels * max(_BYTES.values()) < _BUDGET:
        return
    if pixels > (most := most_pixels(image, turned=turned)):
        raise Image.DecompressionBombError(
            f"{image.width}×{image.height}; expected at most {most // 10**6} million in such a file."
        )


def most_pixels(image: Image.Image, *, turned: bool = False) -> int:
    """The most pixels of a picture like this one, which was opened; nothing is decoded.

    102 million, or fewer where reading needs more memory. A larger ``PIL.Image.MAX_IMAGE_PIXELS`` than
    Pillow's raises them in proportion; with a smaller one, Pillow refuses twice that number by itself.

    - 81 million that are turned, have transparency, are in CMYK, or have 16 bits per colour
    - 65 million of JPEG in several passes ("progressive")
    - 90 million of GIF, 54 million of AVIF, 39 million of WebP, 27 million of JPEG 2000
    """
    needed = _BYTES[str(image.format)]
    tiles: list[tuple[Any, ...]] = getattr(image, "tile", None) or []
    wide = any(";16" in str(tile[3]) for tile in tiles) and image.mode in ("RGB", "RGBA")
    plain = image.mode in ("1", "L", "P", "RGB") or image.mode.startswith("I;16")
    # Pillow decodes a PNG file to look for EXIF data behind the pixels.
    if image.format != "PNG" or "exif" in image.info:
        turned = turned or orientation(image) != 1
    if not plain or wide or turned:
        needed = max(needed, _COPIED)
    if image.format in ("JPEG", "MPO") and _has_several_scans(image):
        needed = max(needed, _BUFFERED)
    return int(_BUDGET / needed * max((Image.MAX_IMAGE_PIXELS or 1) / _MAX_IMAGE_PIXELS, 1))


def _has_several_scans(image: Image.Image) -> bool:
    """Whether a JPEG file has its colours in several passes, all of which the decoder keeps in memory."""
    if image.info.get("progressive"):
        return True
    stream: Any = getattr(image, "fp", None)
    before = stream.tell()
    try:
        stream.seek(2)
        while (marker := stream.read(2)) and marker[:1] == b"\xff":
            length = int.from_bytes(stream.read(2)) - 2
            if marker == b"\xff\xda":  # The head of the first pass says how many colours it has.
                return int.from_bytes(stream.read(1)) < len(image.getbands())
            stream.seek(length, os.SEEK_CUR)
        return True  # It cannot be followed.
    finally:
        stream.seek(before)


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
