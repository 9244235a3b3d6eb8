"""Parts of an image by class or region, and pictures as files."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import OutputError, PixelClipError
from pixelclip_sdk.image import reduced
from pixelclip_sdk.results.regions import Region
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.visualize import draw_overlay, palette

if TYPE_CHECKING:
    from pixelclip_sdk.segmentation import Segmentation

__all__ = ["crop", "cutout", "label_picture", "overlay", "png", "save_labels", "save_picture"]

_LARGEST_OVERLAY = 64_000_000  # Pixels of an overlay in full size.
_REDUCED = 3


def crop(result: "Segmentation", what: "str | int | Region") -> Image.Image:
    """Cuts out the smallest rectangle around a class or region; see `Segmentation.crop`."""
    return Image.fromarray(result.image[_window(_mask(result, what), what)])


def cutout(result: "Segmentation", what: "str | int | Region") -> Image.Image:
    """Cuts out a class or region without its surroundings; see `Segmentation.cutout`."""
    mask = _mask(result, what)
    window = _window(mask, what)
    alpha = mask[window].astype(np.uint8) * np.uint8(255)
    return Image.fromarray(np.dstack([result.image[window], alpha]))


def overlay(result: "Segmentation") -> Image.Image:
    """Draws the overlay of `Segmentation.plot`, a large image at a third of its height and width.

    So that drawing it takes no more memory than the largest pictures leave of 1 GB.
    """
    if result.labels.size <= _LARGEST_OVERLAY:
        return result.plot()
    picture = reduced(result.__dict__["image"], (_REDUCED, _REDUCED))  # The field would become an array.
    labels = np.ascontiguousarray(result.labels[::_REDUCED, ::_REDUCED])
    return draw_overlay(picture, labels, result.names, result.areas(), result.unknown)


def png(picture: Image.Image) -> bytes:
    """Returns a picture as the content of a PNG file."""
    content = io.BytesIO()
    picture.save(content, "png", compress_level=1)
    return content.getvalue()


def save_picture(picture: Image.Image, target: Path) -> Path:
    """Writes a picture in the format of the file's suffix; see `Segmentation.save`."""
    if target.suffix.lower() not in Image.registered_extensions():
        raise OutputError(f"cannot save an image as {target.name!r}; expected a name ending in .png or .jpg")
    return _save(picture, target)


def save_labels(labels: npt.NDArray[np.uint8 | np.uint16], target: Path) -> Path:
    """Writes labels as a PNG file; see `Segmentation.save_labels`."""
    if target.suffix.lower() != ".png":
        raise OutputError(f"cannot save labels as {target.name!r}; expected a name ending in .png (lossless)")
    return _save(label_picture(labels), target)


def label_picture(labels: npt.NDArray[np.uint8 | np.uint16]) -> Image.Image:
    """Returns labels as the values of a picture: with a palette, or with more than 255 names 16-bit grey."""
    picture = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        picture.putpalette(palette(256).tobytes())
    return picture


def _save(picture: Image.Image, target: Path) -> Path:
    with atomic_write(target) as temporary:
        try:
            picture.save(temporary)
        except (ValueError, KeyError) as error:
            raise OutputError(f"Pillow cannot write {target.name}: {error}. Use .png or .jpg.") from error
    return target


def _mask(result: "Segmentation", what: "str | int | Region") -> npt.NDArray[np.bool_]:
    mask = what.mask() if isinstance(what, Region) else result.mask(what)
    if mask.shape != result.orig_shape:
        raise PixelClipError(f"the region is of an image of {mask.shape}; this one is {result.orig_shape}")
    return mask


def _window(mask: npt.NDArray[np.bool_], what: "str | int | Region") -> tuple[slice, slice]:
    """The smallest rectangle that has all pixels of a mask."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise PixelClipError(
            f"no pixel of this image is {what!r}; `found()` lists the classes that are there"
        )
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
