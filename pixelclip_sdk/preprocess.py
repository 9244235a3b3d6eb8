"""Any picture → uint8 RGB at its own size → uint8 RGB at the model's size."""

import contextlib
import dataclasses
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.files import is_file, is_folder
from pixelclip_sdk.support.images import IMAGE_FORMATS, open_image_file, orientation

__all__ = [
    "ChannelOrder",
    "Draft",
    "ImageInput",
    "Picture",
    "covered",
    "fit",
    "input_size",
    "load_image",
    "open_draft",
    "open_image",
    "picture_size",
    "scaled_size",
]

ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
ChannelOrder = Literal["rgb", "bgr"]
UInt8Array = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class Draft:
    """A JPEG that was decoded at a fraction of its size.

    Attributes:
        small: The picture so, mode RGB, upright.
        size: `(H, W)` of the picture, upright.
        file: The file's bytes, for who wants all of it.
    """

    small: Image.Image
    size: tuple[int, int]
    file: bytes


Picture = UInt8Array | Image.Image | Draft
"""A decoded picture: `(H, W, 3)` uint8 RGB, a PIL image of mode RGB, or a `Draft`. Read only."""

# Of a draft at least so many times the model's input is left, along both sides.
_DRAFT_LEFT = 2
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# Pillow's decoders raise all of these on damaged files.
_UNREADABLE = (*_BOMBS, OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, RuntimeError)
# EXIF orientation → what makes a picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Squashing a panorama further than this would leave nothing to see, and following it would cost more
# memory than a normal photo.
_MAX_ASPECT = 4.0
# Characters of a path that a message repeats: it may be a picture in base64.
_SHOWN = 300
# The mean colour of photos, which normalisation turns into about zero.
_PADDING = (123, 117, 104)


def load_image(source: ImageInput, channel_order: ChannelOrder = "rgb") -> UInt8Array:
    """Read a picture as upright RGB.

    Greyscale, palette, CMYK and 16-bit files are converted; transparency is laid over white; the EXIF
    orientation is applied.

    Args:
        source: A file's path, a file's bytes, a PIL image, or a uint8 array `(H, W)`, `(H, W, 1)`,
            `(H, W, 3)` or `(H, W, 4)`, 0–255.
        channel_order: Order of an array's colour channels. Files and PIL images know their own.

    Returns:
        `(H, W, 3)` uint8, RGB, 0–255, C-contiguous. May share memory with `source`.

    Raises:
        ImageError: There is no such file, it is no picture or only part of one, it has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``, or the array has another dtype or shape.
    """
    return np.asarray(_open(source, channel_order))


def open_image(source: ImageInput, channel_order: ChannelOrder = "rgb") -> Picture:
    """The same as `load_image`, without the copy from Pillow's memory into an array.

    Args:
        source: See `load_image`.
        channel_order: See `load_image`.

    Returns:
        A PIL image that nobody else has, or an array, which may share memory with `source`.

    Raises:
        ImageError: See `load_image`.
    """
    picture = _open(source, channel_order)
    return picture.copy() if isinstance(picture, Image.Image) and picture is source else picture


def _open(source: ImageInput, channel_order: ChannelOrder) -> UInt8Array | Image.Image:
    """`open_image`, without the copy of what is the caller's."""
    if channel_order not in ("rgb", "bgr"):
        raise ImageError(f'channel_order is {channel_order!r}; expected "rgb" or "bgr"')
    if isinstance(source, np.ndarray):
        return _from_array(source, channel_order)
    if isinstance(source, Image.Image):
        with _decoding("a PIL image"):
            source.load()  # Its file may not have been read yet.
            return _from_pil(source, "a PIL image")
    if isinstance(source, bytes | bytearray):
        return _from_file(io.BytesIO(source), f"{len(source)} bytes")
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if not is_file(path):
            what = "is a folder" if is_folder(path) else "does not exist, or cannot be reached"
            raise ImageError(f"{str(path)[:_SHOWN]} {what}; expected an image file")
        return _from_file(path, str(path))
    raise ImageError(
        f"got {type(source).__name__}; expected a path, the bytes of an image file, "
        "a PIL image or a uint8 array (H, W, 3). A torch tensor: pass tensor.cpu().numpy()"
    )


def open_draft(source: ImageInput, spec: InputSpec, channel_order: ChannelOrder = "rgb") -> Picture:
    """The same as `open_image`, but a JPEG file that is large for the model is decoded at a half, 4th or 8th.

    That leaves out much of decoding. It is done where twice the model's input is left along both sides, so
    from four times its size on. Pixels differ a little from those of the whole file made smaller.

    Args:
        source: See `load_image`.
        spec: The sizes that the model takes.
        channel_order: See `load_image`.

    Raises:
        ImageError: See `load_image`.
    """
    if not isinstance(source, str | os.PathLike | bytes | bytearray):
        return open_image(source, channel_order)
    try:
        file = bytes(source) if isinstance(source, bytes | bytearray) else Path(source).read_bytes()
        with Image.open(io.BytesIO(file), formats=["JPEG"]) as image:
            turned = orientation(image) in (5, 6, 7, 8)
            width, height = image.size[::-1] if turned else image.size
    except _UNREADABLE:  # Not there, no JPEG, or a broken one: the usual way says what it is.
        return open_image(source, channel_order)
    rows, columns = scaled_size(height, width, spec)
    left = min(height / rows, width / columns) / _DRAFT_LEFT
    if left < _DRAFT_LEFT:
        return open_image(source, channel_order)
    name = str(source) if isinstance(source, str | os.PathLike) else f"{len(file)} bytes"
    small = _from_file(io.BytesIO(file), name, shrink=int(left))
    return Draft(small, (height, width), file) if isinstance(small, Image.Image) else small


def picture_size(picture: Picture) -> tuple[int, int]:
    """Size `(H, W)`."""
    if isinstance(picture, Draft):
        return picture.size
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return picture.shape[0], picture.shape[1]


def input_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Size `(H, W)` of the model's input for a picture of `height` × `width`.

    A model of a fixed size has one. For others it has the picture's aspect ratio and about the number of
    pixels of the nominal size, so that a frame costs the same whatever its shape.
    """
    if spec.fixed:
        return spec.height, spec.width
    aspect = min(max(width / height, 1 / _MAX_ASPECT), _MAX_ASPECT)
    area = spec.height * spec.width

    def snap(pixels: float) -> int:
        return max(round(pixels / spec.multiple), 1) * spec.multiple

    return snap(math.sqrt(area / aspect)), snap(math.sqrt(area * aspect))


def scaled_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Size `(H, W)` that a picture of `height` × `width` has inside the model's input, at its top left.

    Smaller than `input_size` where the size is fixed and the aspect ratio is kept.
    """
    size = input_size(height, width, spec)
    if not (spec.fixed and spec.keep_aspect):
        return size
    scale = min(size[0] / height, size[1] / width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def covered(size: tuple[int, int], spec: InputSpec) -> tuple[float, float]:
    """Share `(down, across)` of the model's input that a picture of `size` `(H, W)` covers."""
    scaled, whole = scaled_size(*size, spec), input_size(*size, spec)
    return scaled[0] / whole[0], scaled[1] / whole[1]


def fit(image: Picture, spec: InputSpec) -> UInt8Array:
    """Bring a picture to the model's input: bilinear, antialiased when shrinking.

    Args:
        image: `(H, W, 3)` uint8; a PIL image of mode RGB, which saves a copy; or a draft.
        spec: The sizes the model takes.

    Returns:
        uint8 `(*input_size(H, W, spec), 3)`, C-contiguous; may be `image` itself. Where `scaled_size` is
        smaller, the right or the bottom is grey.
    """
    height, width = picture_size(image)
    size, whole = scaled_size(height, width, spec), input_size(height, width, spec)
    if isinstance(image, Draft):
        image = image.small
    if (height, width) != size:
        large = image if isinstance(image, Image.Image) else Image.fromarray(image)
        # From three times the size on, it is first averaged over blocks, the filter's finest 1.5 pixels kept:
        # about half the time on a large frame, a third of a grey level apart on average.
        image = large.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=1.5)
    image = np.asarray(image)
    if size == whole:
        return image
    padded = np.empty((*whole, 3), np.uint8)
    padded[: size[0], : size[1]] = image
    padded[size[0] :] = padded[:, size[1] :] = _PADDING
    return padded


def _from_file(file: Path | io.BytesIO, name: str, shrink: int = 1) -> UInt8Array | Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    with _decoding(name), open_image_file(file) as image:
        # Pillow only warns between its limit and twice its limit.
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError(f"it is {image.width}×{image.height}.")
        if shrink > 1:
            image.draft(None, (image.width // shrink, image.height // shrink))
        image.load()
        return _from_pil(image, name)


@contextlib.contextmanager
def _decoding(name: str) -> Iterator[None]:
    """What Pillow raises as an ImageError about `name`."""
    try:
        yield
    except ImageError:
        raise
    except _BOMBS as error:
        raise ImageError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS} pixels: {error} "
            "If you trust it, raise PIL.Image.MAX_IMAGE_PIXELS or pass it as an array."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image; expected one of {', '.join(IMAGE_FORMATS)}") from error
    except _UNREADABLE as error:
        raise ImageError(f"{name} cannot be read as an image: {error}. Is the file complete?") from error


def _from_pil(image: Image.Image, name: str) -> UInt8Array | Image.Image:
    """The picture upright in RGB: `image` itself if it is, else a new one."""
    if 0 in image.size:
        raise ImageError(f"{name} is {image.width}×{image.height} pixels; expected at least 1×1")
    if image.mode == "I" and image.format == "PPM":  # Pillow brings 9 to 16 bits to the full range of 16.
        return _from_array((np.asarray(image) >> 8).astype(np.uint8), "rgb")
    if image.mode in ("I", "F"):
        raise ImageError(
            f"{name} has pixels of mode {image.mode!r} (32 bits, no defined range); expected 8 or 16 bits. "
            "Scale it to uint8 0–255 first."
        )
    # Only where there is something to do: a copy of a large picture costs as much as decoding it.
    if (turn := _TURNS.get(orientation(image))) is not None:
        image = image.transpose(turn)
    if image.mode.startswith("I;16"):
        # Full-range 16 bits; Pillow's own conversion would clip everything above 255.
        return _from_array((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8), "rgb")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA")))
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(array: np.ndarray, channel_order: ChannelOrder) -> UInt8Array:
    if array.dtype != np.uint8:
        hint = "image.astype(np.uint8)"
        if np.issubdtype(array.dtype, np.floating):
            hint = "(image * 255).astype(np.uint8) if it runs from 0 to 1, after replacing any NaN"
        elif array.dtype == np.uint16:
            hint = "(image >> 8).astype(np.uint8)"
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
        return _over_white(array)
    return np.ascontiguousarray(array)


def _over_white(rgba: UInt8Array) -> UInt8Array:
    alpha = rgba[:, :, 3:].astype(np.uint16)
    mixed = rgba[:, :, :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)
