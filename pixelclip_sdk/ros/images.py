"""Pictures out of ``sensor_msgs/Image`` and ``sensor_msgs/CompressedImage``.

Encodings are those of ``sensor_msgs/image_encodings.hpp``; colours of YUV follow cv_bridge (BT.601, limited
range). An alpha channel is ignored, because cameras use it as padding.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import ImageError, PixelClipError
from pixelclip_sdk.image import Picture, open_image

__all__ = ["COMPRESSED_TYPE", "IMAGE_TYPE", "check_rotate", "decode_image"]

UInt8Array = npt.NDArray[np.uint8]

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"

# Encoding → samples of a pixel, and Pillow's name of their order.
_COLOURS = {
    "rgb": (3, "RGB"),
    "bgr": (3, "BGR"),
    "rgba": (4, "RGBX"),
    "bgra": (4, "BGRX"),
    "mono": (1, "L"),
}
_PACKED = {f"{name}{bits}": (*value, bits) for name, value in _COLOURS.items() for bits in (8, 16)}
# OpenCV's names: it keeps colours in the order blue, green, red.
_PACKED |= {"8UC1": (1, "L", 8), "8UC3": (3, "BGR", 8), "8UC4": (4, "BGRX", 8)}
# Encoding → positions of brightness, Cb and Cr in four bytes, which are two pixels.
_UYVY, _YUYV = ((1, 3), 0, 2), ((0, 2), 1, 3)
_YUV = {"yuv422": _UYVY, "uyvy": _UYVY, "yuv422_yuy2": _YUYV, "yuyv": _YUYV}
# Encoding → colours of a square of four pixels, row by row.
_BAYER = {
    f"bayer_{order}{bits}": (order, bits) for order in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)
}

_LEVELS = np.arange(256)
_FULL_LUMA = np.clip(np.rint((_LEVELS - 16) * (255 / 219)), 0, 255).astype(np.uint8)
_FULL_CHROMA = np.clip(np.rint((_LEVELS - 128) * (255 / 224) + 128), 0, 255).astype(np.uint8)

# Degrees clockwise → Pillow's operation, which counts the other way round.
_TURNS = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}


def check_rotate(rotate: int) -> None:
    """Raise PixelClipError if `rotate` is not 0, 90, 180 or 270."""
    if rotate != 0 and rotate not in _TURNS:
        raise PixelClipError(f"rotate is {rotate!r}; expected 0, 90, 180 or 270 degrees clockwise")


def decode_image(message: Any, rotate: int = 0) -> Picture:
    """Decode an image message.

    Args:
        message: Has the fields of ``sensor_msgs/Image`` or of ``sensor_msgs/CompressedImage`` (JPEG, PNG and
            the other formats of `Segmenter.predict`). Its data are bytes, ``array.array("B")`` or a uint8
            array.
        rotate: Degrees by which the picture must be turned clockwise to be upright: 0, 90, 180 or 270.

    Returns:
        The upright picture, `(H, W)` or turned: RGB, a PIL image or `(H, W, 3)` uint8.

    Raises:
        ImageError: The encoding is unknown, the sizes do not fit the data, or the data are damaged.
        PixelClipError: `rotate` is not one of its values.

    Examples:
        >>> from types import SimpleNamespace
        >>> message = SimpleNamespace(
        ...     height=1, width=2, encoding="bgr8", is_bigendian=0, step=6, data=bytes([9, 0, 0, 0, 5, 0])
        ... )
        >>> decode_image(message).getpixel((0, 0))
        (0, 0, 9)
        >>> decode_image(message, rotate=90).size
        (1, 2)
    """
    check_rotate(rotate)
    picture = _raw(message) if hasattr(message, "encoding") else _compressed(message)
    if rotate == 0:
        return picture
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return image.transpose(_TURNS[rotate])


def _compressed(message: Any) -> Picture:
    if "compressedDepth" in message.format:
        raise ImageError(f"a compressed image has the format {message.format!r}: depth, not a picture")
    try:
        return open_image(_bytes(message.data).tobytes())
    except ImageError as error:
        raise ImageError(f"a compressed image of the format {message.format!r}: {error}") from error


def _raw(message: Any) -> Picture:
    encoding, width, height = message.encoding, message.width, message.height
    if min(width, height) < 1:
        raise ImageError(f"an image is {width}×{height} pixels; expected at least 1×1")
    if encoding in _PACKED:
        samples, order, bits = _PACKED[encoding]
        rows = _rows(message, samples, bits)
        mode = "L" if order == "L" else "RGB"
        picture = Image.frombytes(mode, (width, height), rows.tobytes(), "raw", order)
        return picture.convert("RGB") if mode == "L" else picture
    if encoding in _YUV:
        return _from_yuv(message, *_YUV[encoding])
    if encoding in _BAYER:
        order, bits = _BAYER[encoding]
        return _from_bayer(_rows(message, 1, bits), order)
    hint = " It is depth, not a picture." if encoding in ("16UC1", "32FC1") else ""
    known = ", ".join([*_PACKED, *_YUV, *_BAYER])
    raise ImageError(f"an image has the encoding {encoding!r}; expected one of {known}.{hint}")


def _bytes(data: Any) -> UInt8Array:
    return np.frombuffer(data, np.uint8)


def _rows(message: Any, samples: int, bits: int) -> UInt8Array:
    """The samples without padding at the ends of rows, `(H, W · samples)`; of 16 bits the upper eight."""
    data, used = _bytes(message.data), message.width * samples * bits // 8
    if message.step < used or len(data) < message.step * message.height:
        raise ImageError(
            f"an image of {message.width}×{message.height} pixels, {message.encoding}, has rows of "
            f"{message.step} bytes and {len(data)} bytes in all; expected rows of at least {used} bytes, and "
            f"{max(message.step, used) * message.height} bytes"
        )
    rows = data[: message.step * message.height].reshape(message.height, message.step)[:, :used]
    return rows if bits == 8 else rows[:, int(not message.is_bigendian) :: 2]


def _from_yuv(message: Any, luma: tuple[int, int], blue: int, red: int) -> Image.Image:
    """YUV 4:2:2: two pixels have a brightness each, and one colour together."""
    if message.width % 2:
        raise ImageError(
            f"an image of {message.encoding} is {message.width} pixels wide; expected an even number"
        )
    pairs = _rows(message, 2, 8).reshape(message.height, -1, 4)
    brightness = _FULL_LUMA[pairs[:, :, list(luma)].reshape(message.height, -1)]
    planes = [brightness, *(_FULL_CHROMA[pairs[:, :, i].repeat(2, axis=1)] for i in (blue, red))]
    return Image.merge("YCbCr", [Image.fromarray(plane) for plane in planes]).convert("RGB")


def _from_bayer(rows: UInt8Array, order: str) -> Image.Image:
    """A quarter of the pixels, whose colours are known, enlarged: the model sees no finer ones."""
    height, width = rows.shape
    if height % 2 or width % 2:
        raise ImageError(f"a Bayer image is {width}×{height} pixels; expected even numbers")
    places = [rows[i // 2 :: 2, i % 2 :: 2] for i in range(4)]
    red, blue = places[order.index("r")], places[order.index("b")]
    first, second = (place for place, colour in zip(places, order, strict=True) if colour == "g")
    green = ((first.astype(np.uint16) + second + 1) >> 1).astype(np.uint8)
    small = Image.fromarray(np.stack([red, green, blue], axis=2))
    return small.resize((width, height), Image.Resampling.BILINEAR)
