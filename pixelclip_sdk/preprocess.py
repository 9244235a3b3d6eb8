"""Resizes an image to the input size of the model."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.image import Picture, picture_size, reduced

__all__ = ["covered", "fit", "input_size", "reducing_factor", "scaled_size"]

UInt8Array = npt.NDArray[np.uint8]

# Panoramas are squashed to this aspect ratio. Squashing them further would make objects unrecognisable, and
# keeping theirs would take more memory than a normal photo.
_MAX_ASPECT = 4.0
# The mean colour of photos. Normalisation turns it into about zero.
_PADDING = (123, 117, 104)
# Of `_resized`.
_REDUCING_GAP = 1.5


def input_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Size `(H, W)` of the model's input for an image of `height` × `width`.

    Models of a fixed size have one input size. For other models, the input has the image's aspect ratio and
    about as many pixels as the nominal size, so that images of all shapes take the same time.

    Examples:
        >>> from pixelclip_sdk.bundle import InputSpec
        >>> spec = InputSpec(height=384, width=512, multiple=32, fixed=False, keep_aspect=True)
        >>> input_size(1080, 1920, spec)
        (320, 576)
    """
    if spec.fixed:
        return spec.height, spec.width
    aspect = min(max(width / height, 1 / _MAX_ASPECT), _MAX_ASPECT)
    area = spec.height * spec.width

    def snap(pixels: float) -> int:
        return max(round(pixels / spec.multiple), 1) * spec.multiple

    return snap(math.sqrt(area / aspect)), snap(math.sqrt(area * aspect))


def scaled_size(height: int, width: int, spec: InputSpec) -> tuple[int, int]:
    """Size `(H, W)` of the resized image within the model's input.

    Equals `input_size`, unless the input size is fixed and the aspect ratio is kept. Then the image is at the
    top left, and the rest is padding.
    """
    size = input_size(height, width, spec)
    if not (spec.fixed and spec.keep_aspect):
        return size
    scale = min(size[0] / height, size[1] / width)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def reducing_factor(pixels: int, wanted: int) -> int:
    """So many pixels along an axis are averaged before the filter."""
    return max(int(pixels / wanted / _REDUCING_GAP), 1)


def covered(size: tuple[int, int], spec: InputSpec) -> tuple[float, float]:
    """Fractions `(of height, of width)` of the model's input that an image of size `(H, W)` covers."""
    scaled, whole = scaled_size(*size, spec), input_size(*size, spec)
    return scaled[0] / whole[0], scaled[1] / whole[1]


def fit(image: Picture, spec: InputSpec) -> UInt8Array:
    """Resize an image to the model's input: bilinear, antialiased when shrinking.

    Returns `(*input_size(H, W, spec), 3)` uint8 RGB, C-contiguous; may be `image` itself. The right or the
    bottom is grey where `scaled_size` is smaller.
    """
    height, width = picture_size(image)
    size, whole = scaled_size(height, width, spec), input_size(height, width, spec)
    if (height, width) != size:
        image = _resized(image, size)
    image = np.asarray(image)
    if size == whole:
        return image
    padded = np.empty((*whole, 3), np.uint8)
    padded[: size[0], : size[1]] = image
    padded[size[0] :] = padded[:, size[1] :] = _PADDING
    return padded


def _resized(image: Picture, size: tuple[int, int]) -> Image.Image:
    """As Pillow's `resize` with a `reducing_gap`, which an array would need a PIL image of its size for.

    Blocks of pixels are averaged before the filter if the image is at least three times as large. That halves
    the time for large images and changes values by a third of a grey level on average.
    """
    height, width = picture_size(image)
    x, y = reducing_factor(width, size[1]), reducing_factor(height, size[0])
    if x > 1 or y > 1:
        image = reduced(image, (x, y))
    elif not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    return image.resize(size[::-1], Image.Resampling.BILINEAR, box=(0, 0, width / x, height / y))
