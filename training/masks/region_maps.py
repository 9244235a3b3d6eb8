"""Region maps: one PNG per photo with a value or colour per region, or one PNG per mask."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.images import ignore_warnings, open_image_file, orientation
from training.masks.source import NoMasksError, check_aspect, shrink, stack_masks

__all__ = ["RegionMaps", "photo_size"]

_NO_REGION = -1  # value of a transparent pixel


@dataclass(frozen=True)
class RegionMaps:
    """Hand-drawn regions, instances or any segmentation. Values only tell regions apart.

    The folder `maps` has `REL/PATH.png` for the photo `REL/PATH.jpg`: grey, palette, 16 or 32 bits (a value
    is a region) or RGB (a colour is a region); transparent pixels have no region. Alternatively it has a
    folder `REL/PATH` with one PNG per mask, as written by segment-anything's `amg.py`: a mask is all pixels
    above 0, and masks may overlap.
    """

    maps: Path
    # Value of pixels without a region, for colours R + 256 G + 65536 B; None: every value is a region. Unused
    # for folders of masks.
    background: int | None = None
    name = "regions"
    on_gpus = False

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.generic]:
        """See `MaskSource`."""
        file, folder = self.maps / f"{relative}.png", self.maps / relative
        if not file.is_file() and not folder.is_dir():
            raise NoMasksError(f"there is no {file}, nor a folder {folder} of masks")
        size = photo_size(photo)
        if file.is_file():
            values = _read(file, size)
            numbers = np.unique(values, return_inverse=True)[1].reshape(values.shape) + 1
            numbers[(values == _NO_REGION) | (values == self.background)] = 0
            return shrink(numbers, short_side)
        # Shrunk one by one: together they may take hundreds of megabytes at full size.
        masks = [shrink(_read(mask, size) > 0, short_side) for mask in sorted(folder.glob("*.png"))]
        return stack_masks(masks, folder)


def photo_size(photo: Path) -> tuple[int, int]:
    """Return `(H, W)` of a photo after its EXIF orientation is applied; only the header is read."""
    with _open(photo) as image:
        width, height = image.size
        turned = orientation(image) >= 5  # by a quarter turn
    return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _open(file: Path) -> Iterator[Image.Image]:
    try:
        with ignore_warnings(), open_image_file(file) as image:
            yield image
    except Exception as error:  # Damaged files make Pillow raise errors of almost any type.
        raise ImageError(f"{file} cannot be read as an image: {error}. Is the file complete?") from error


def _read(file: Path, photo: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the region of every pixel, `_NO_REGION` where it is transparent: `[H, W]`."""
    with _open(file) as image:
        # Before it is decoded: a small file may state a large size.
        problem = check_aspect(photo, (image.height, image.width))
        values = None if problem else np.asarray(image).astype(np.int64)
    if values is None:
        raise ImageError(f"{file} has {problem}")
    if values.ndim == 3:
        channels = values.shape[2]
        if not 2 <= channels <= 4:
            raise ImageError(f"{file} has {channels} channels; expected grey, palette, RGB or RGBA")
        colours = 1 if channels == 2 else 3
        transparent = (values[..., colours:] == 0).any(-1)  # False without an alpha channel
        values = values[..., :colours] @ np.array([1, 256, 65536][:colours])
        values[transparent] = _NO_REGION
    return values
