"""Reads any image as upright 8-bit sRGB."""

import contextlib
import functools
import io
import mimetypes
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.bit_depth import eight_bit_grey, load_scaled, used_bits
from pixelclip_sdk.support.colour_profile import to_srgb
from pixelclip_sdk.support.files import is_file, is_folder, user_path
from pixelclip_sdk.support.images import (
    IMAGE_FORMATS,
    ignore_warnings,
    open_image_file,
    orientation,
    refuse_too_large,
)

__all__ = [
    "ChannelOrder",
    "ImageInput",
    "LazyImage",
    "Picture",
    "brightness",
    "load_image",
    "open_image",
    "picture_size",
    "reduced",
    "strip_rows",
    "strips",
    "to_array",
    "upright",
]

ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
ChannelOrder = Literal["rgb", "bgr"]
UInt8Array = npt.NDArray[np.uint8]
Picture = UInt8Array | Image.Image
"""A decoded image: `(H, W, 3)` uint8 RGB, or a PIL image of mode RGB. Read only."""

# EXIF orientation → the operation that makes the image upright, and the same for an array.
_TURNS: dict[int, tuple[Image.Transpose, Callable[[UInt8Array], UInt8Array]]] = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, lambda array: array[:, ::-1]),
    3: (Image.Transpose.ROTATE_180, lambda array: array[::-1, ::-1]),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, lambda array: array[::-1]),
    5: (Image.Transpose.TRANSPOSE, lambda array: array.swapaxes(0, 1)),
    6: (Image.Transpose.ROTATE_270, lambda array: np.rot90(array, -1)),
    7: (Image.Transpose.TRANSVERSE, lambda array: array[::-1, ::-1].swapaxes(0, 1)),
    8: (Image.Transpose.ROTATE_90, np.rot90),
}
# Modes that Pillow converts to RGB.
_CONVERTIBLE = ("RGB", "RGBX", "L", "P", "1", "CMYK", "YCbCr", "HSV")
_WITH_ALPHA = ("RGBA", "LA", "PA", "La", "RGBa")
_GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
# Pixels of the strips in which large images are converted, which limits the memory for temporary arrays.
_STRIP_PIXELS = 1 << 19
# Characters of a path that a message repeats: it may be an image in base64.
_MESSAGE_CHARACTERS = 300
# `Path` removes one of the two slashes. A single letter before the colon is a Windows drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def load_image(source: ImageInput, channel_order: ChannelOrder = "rgb") -> UInt8Array:
    """Read an image as upright sRGB.

    Greyscale, palette and CMYK images become RGB. Other rules:

    - Transparent pixels are blended with white. An alpha channel of zeros everywhere is ignored, because
      screen captures and cameras use the fourth byte as padding (BGRX).
    - 16-bit images are scaled to 8 bits. The white level is the one the file states (TIFF, PGM, JPEG 2000).
      Without one, an image that uses only the lowest 8, 10, 12 or 14 bits is scaled by these, and a warning
      is logged.
    - An embedded colour profile is converted to sRGB. A damaged one is ignored, and a warning is logged.
    - The EXIF orientation of files is applied. That of a PIL image is applied only if the image comes
      straight from a file (`image.format` is set). Images that Pillow made from another one, for example by
      `rotate` or `convert`, keep the EXIF data but may already be upright. They are used as they are.

    Args:
        source: A path, the bytes of an image file, a PIL image, or a uint8 array of shape `(H, W)`,
            `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`, 0–255.
        channel_order: Order of an array's colour channels. Ignored for files and PIL images.

    Returns:
        `(H, W, 3)` uint8 RGB, 0–255, C-contiguous. May share memory with `source`.

    Raises:
        ImageError: The file does not exist, is not an image, is damaged, or has more pixels than files of
            its kind may have: 102 million, 54 million in AVIF, 39 million in WebP, 27 million in JPEG 2000,
            less if it is turned, transparent or progressive. A larger ``PIL.Image.MAX_IMAGE_PIXELS`` allows
            more. Or the array has another dtype or shape.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk.image import load_image
        >>> grey = np.zeros((480, 640), np.uint8)
        >>> load_image(grey).shape
        (480, 640, 3)
    """
    return to_array(_open(source, channel_order))


def open_image(source: ImageInput, channel_order: ChannelOrder = "rgb") -> Picture:
    """Read an image like `load_image`, but without the copy from Pillow's memory into an array.

    Returns:
        A PIL image of mode RGB that the caller owns, or an array that may share memory with `source`.
    """
    picture = _open(source, channel_order)
    if isinstance(picture, np.ndarray):
        return picture
    return picture.copy() if picture is source and picture.mode == "RGB" else _rgb(picture)


def to_array(picture: Picture) -> UInt8Array:
    """Returns an array, or a PIL image of a mode that Pillow converts to RGB, as `(H, W, 3)` uint8 RGB."""
    if isinstance(picture, np.ndarray):
        return picture
    # For large images, strips take a third of the time and less memory.
    array = np.empty((picture.height, picture.width, 3), np.uint8)
    for rows, strip in strips(picture):
        array[rows] = np.asarray(_rgb(strip))
    return array


def upright(array: UInt8Array, turn: int) -> UInt8Array:
    """Returns a view of an image `(H, W, 3)` that is turned as its EXIF orientation, 1 to 8, says."""
    return _TURNS[turn][1](array) if turn in _TURNS else array


def reduced(picture: Picture, factor: tuple[int, int]) -> Image.Image:
    """Returns the means of blocks of `factor` (columns, rows) pixels, as ``PIL.Image.Image.reduce``."""
    if isinstance(picture, Image.Image):
        return picture.reduce(factor)
    height, width = picture.shape[:2]
    result = Image.new("RGB", (-(-width // factor[0]), -(-height // factor[1])))
    # A PIL image of all of it would take 4 bytes a pixel.
    step = max(_STRIP_PIXELS // width // factor[1], 1) * factor[1]
    for top in range(0, height, step):
        strip = Image.fromarray(picture[top : top + step])
        result.paste(strip.reduce(factor), (0, top // factor[1]))
    return result


def brightness(picture: Picture) -> UInt8Array:
    """Returns the luma of each pixel (ITU-R 601-2), `(H, W)` uint8, as Pillow's mode ``"L"``."""
    result = np.empty(picture_size(picture), np.uint8)
    for rows, strip in strips(picture):
        result[rows] = np.asarray(strip.convert("L"))
    return result


def picture_size(picture: Any) -> tuple[int, int]:
    """Size `(H, W)` of a decoded image: a `Picture`, or anything else of a shape `(H, W, 3)`."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return picture.shape[0], picture.shape[1]


class LazyImage:
    """A field of a dataclass: accepts a PIL image, and converts it to an array on first access.

    It accepts an array too, and a frame on a GPU. Most callers read only the labels, and copying the image
    takes as long as computing them.
    """

    # One lock for all results: a lock in each of them could not be pickled.
    _lock = threading.Lock()

    def __get__(self, result: object | None, kind: type | None = None) -> npt.NDArray[np.uint8]:
        if result is None:
            raise AttributeError("image")  # Tells dataclasses that the field has no default.
        picture: Any = result.__dict__["image"]
        if isinstance(picture, np.ndarray):
            return picture
        with self._lock:
            picture = result.__dict__["image"]
            array: UInt8Array = to_array(picture) if isinstance(picture, Image.Image) else np.asarray(picture)
            result.__dict__["image"] = array
        return array

    def __set__(self, result: object, picture: Picture) -> None:
        result.__dict__["image"] = picture


def _open(source: ImageInput, channel_order: ChannelOrder) -> Picture:
    """Returns an upright sRGB image: an array, or of any mode that Pillow converts to RGB; maybe `source`."""
    if channel_order not in ("rgb", "bgr"):
        raise ImageError(f'channel_order is {channel_order!r}; expected "rgb" or "bgr"')
    if isinstance(source, np.ndarray):
        return _from_array(source, channel_order)
    file: Path | io.BytesIO
    if isinstance(source, Image.Image):
        with _image_errors("a PIL image"):
            return _from_pil(source, None, "a PIL image")
    elif isinstance(source, bytes | bytearray):
        file, name = io.BytesIO(source), f"{len(source)} bytes"
    elif isinstance(source, str | os.PathLike):
        file, name = user_path(source), str(source)[:_MESSAGE_CHARACTERS]
        if not is_file(file):
            if _URL.match(name):
                raise ImageError(f"{name} is a URL; expected an image file. Download it first.")
            problem = "is a folder" if is_folder(file) else "does not exist, or cannot be reached"
            raise ImageError(f"{name} {problem}; expected an image file")
    else:
        raise ImageError(
            f"got {type(source).__name__}; expected a path, the bytes of an image file, "
            "a PIL image or a uint8 array (H, W, 3). A torch tensor: pass tensor.cpu().numpy()"
        )
    with _image_errors(name), open_image_file(file) as image:
        return _from_pil(image, file, name)


@contextlib.contextmanager
def _image_errors(name: str) -> Iterator[None]:
    """Turns every error of Pillow into an ImageError about `name`, and ignores Pillow's warnings."""
    try:
        with ignore_warnings():
            yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} has too many pixels: {error} Make it smaller first. In Python, "
            "a larger PIL.Image.MAX_IMAGE_PIXELS raises the limit."
        ) from error
    except UnidentifiedImageError as error:
        problem = f"{name} is not an image; expected one of {', '.join(IMAGE_FORMATS)}"
        if (mimetypes.guess_type(name)[0] or "").startswith("video/"):
            problem = f"{name} is a video; use `pixelclip video`, or in Python Segmenter.stream"
        raise ImageError(problem) from error
    except Exception as error:  # Damaged files make Pillow raise errors of almost any type.
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{name} cannot be read: {error.strerror}") from error
        reason = str(error) or type(error).__name__
        raise ImageError(f"{name} cannot be read as an image: {reason}. Is the file complete?") from error


def _from_pil(image: Image.Image, file: Path | io.BytesIO | None, name: str) -> Picture:
    """Loads an image and converts it to upright 8-bit sRGB; returns `image` if there is nothing to do."""
    image = load_scaled(image, file, name)
    if 0 in image.size:
        raise ImageError(f"{name} is {image.width}×{image.height} pixels; expected at least 1×1")
    turn = None if image.format is None else _TURNS.get(orientation(image))
    if turn is not None and file is not None and image.format == "PNG":
        refuse_too_large(image, turned=True)  # It may say so behind its pixels; others were asked before.
    # A copy of a large image costs as much as decoding it, so images are copied only where necessary.
    picture = _to_eight_bits(image, name, owned=file is not None)
    if file is not None and picture is not image:
        image.close()  # Releases its memory.
    if turn is None:
        return picture
    if isinstance(picture, Image.Image):
        return picture.transpose(turn[0])
    return np.ascontiguousarray(turn[1](picture))


def _to_eight_bits(image: Image.Image, name: str, *, owned: bool) -> Picture:
    """Converts to 8-bit sRGB: RGB, or another mode that Pillow converts to RGB.

    An `owned` image may be changed in place.
    """
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled 9 to 16 bits to 65535.
        return _from_array((np.asarray(image) >> 8).astype(np.uint8), "rgb")
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{name} has pixels of mode {image.mode!r} (32 bits, no defined range); expected 8 or 16 bits. "
            "Scale it to uint8 0–255 first."
        )
    grey, profile = image.mode in _GREY, image.info.get("icc_profile")
    srgb = functools.partial(to_srgb, profile or b"", grey=grey, owned=owned, name=name)
    if image.mode.startswith("I;16"):
        image = Image.fromarray(eight_bit_grey(image, name))
    elif image.mode in _WITH_ALPHA or "transparency" in image.info:
        return _over_white(image, srgb("RGB") if profile else None)
    if profile:
        image = srgb(image.mode)(image)
    if image.mode not in _CONVERTIBLE:
        raise ImageError(f"{name} has pixels of mode {image.mode!r}; expected {', '.join(_CONVERTIBLE)}")
    return image


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: np.ndarray, channel_order: ChannelOrder) -> UInt8Array:
    if array.dtype != np.uint8:
        hint = "image.astype(np.uint8)" + (" * 255" if array.dtype == bool else "")
        if np.issubdtype(array.dtype, np.floating):
            hint = "(image * 255).astype(np.uint8) if it runs from 0 to 1, after replacing any NaN"
        elif array.dtype == np.uint16:
            bits = used_bits(int(array.max(initial=0)))
            hint = f"(image >> {bits - 8}).astype(np.uint8), if white is {2**bits - 1}"
        raise ImageError(f"got an array of {array.dtype}; expected uint8, 0–255. Convert: {hint}")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ImageError(
            f"got an array of shape {array.shape}; expected (H, W, 3), (H, W, 4), (H, W, 1) or (H, W). "
            "Channels come last; for a batch call predict_batch."
        )
    if 0 in array.shape:
        raise ImageError(f"got an empty array of shape {array.shape}; expected at least one pixel")
    if array.shape[2] == 1:
        array = array.repeat(3, axis=2)
    elif channel_order == "bgr":
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    if array.shape[2] == 4:
        return _over_white(Image.fromarray(array))
    return np.ascontiguousarray(array)


def strip_rows(height: int, width: int) -> Iterator[slice]:
    """Yields the rows of strips of about half a million pixels, from top to bottom."""
    step = max(_STRIP_PIXELS // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def strips(picture: Picture) -> Iterator[tuple[slice, Image.Image]]:
    """Cuts an image into strips of about half a million pixels; yields their rows and the strips."""
    height, width = picture_size(picture)
    for rows in strip_rows(height, width):
        if isinstance(picture, np.ndarray):
            yield rows, Image.fromarray(picture[rows])
            continue
        with ignore_warnings():  # Pillow before 13 warns about large strips of large images.
            strip = picture.crop((0, rows.start, width, rows.stop))
        yield rows, strip


def _over_white(
    image: Image.Image, convert: Callable[[Image.Image], Image.Image] | None = None
) -> UInt8Array:
    """Blends an image with white: `(H, W, 3)`. If alpha is zero everywhere, the colours are unchanged.

    `convert` is called with parts of the result, of mode RGB. Works in strips, because an RGBA copy of a
    large palette image would take four times its memory.
    """
    result = np.empty((image.height, image.width, 3), np.uint8)
    has_alpha = any(_rgba(strip).getchannel("A").getbbox() for _, strip in strips(image))
    for rows, strip in strips(image):
        rgba = _rgba(strip)
        if has_alpha:
            blended = Image.new("RGB", rgba.size, "white")
            blended.paste(rgba, mask=rgba)
        else:
            blended = rgba.convert("RGB")
        result[rows] = np.asarray(convert(blended) if convert else blended)
    return result


def _rgba(image: Image.Image) -> Image.Image:
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
