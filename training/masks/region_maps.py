"""Region maps: one PNG a photo whose pixel values, or colours, only tell regions apart; or one PNG a mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.images import open_image_file, orientation
from training.masks.source import NoMasksError, check_aspect, shrink

__all__ = ["RegionMaps", "photo_size"]

_NOWHERE = -1  # a transparent pixel


@dataclass(frozen=True)
class RegionMaps:
    """Hand-drawn regions, instances, anybody's segmentation: the numbers mean nothing.

    Attributes:
        maps: Folder with `REL/PATH.png` for the photo `REL/PATH.jpg`: grey or palette (the value is the
            region), 16 or 32 bits, or RGB (the colour is the region); transparent pixels have none. Where
            there is a folder `REL/PATH` instead, each PNG in it is a mask of its own, of all pixels above 0;
            they may overlap. segment-anything's `amg.py` writes such folders.
        background: Value of pixels without a region; None if every value is one, 0 as well. Of colours it is
            R + 256 G + 65536 B. Folders of masks do without.
    """

    maps: Path
    background: int | None = None
    name = "regions"
    on_gpus = False

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.generic]:
        """See `MaskSource`."""
        file, folder = self.maps / f"{relative}.png", self.maps / relative
        if not file.is_file():
            if not folder.is_dir():
                raise NoMasksError(f"there is no {file}, nor a folder {folder} of masks")
            size = photo_size(photo)
            # One by one, as a hundred of them are large before they are shrunk.
            masks = [shrink(_fitting(mask, size) > 0, short_side) for mask in sorted(folder.glob("*.png"))]
            if not masks:
                raise NoMasksError(f"{folder} has no .png files")
            if len({mask.shape for mask in masks}) > 1:
                raise ImageError(f"{folder} has masks of several sizes; expected one")
            return np.stack(masks)
        values = _fitting(file, photo_size(photo))
        numbers = np.unique(values, return_inverse=True)[1].reshape(values.shape) + 1
        numbers[values == _NOWHERE] = 0
        if self.background is not None:
            numbers[values == self.background] = 0
        return shrink(numbers, short_side)


def photo_size(photo: Path) -> tuple[int, int]:
    """`(H, W)` of a photo as it is shown, from its header alone.

    Raises:
        ImageError: It is no image.
    """
    try:
        with open_image_file(photo) as image:
            size = image.size[::-1]
            turned = orientation(image) >= 5  # Rotated by a quarter turn.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{photo} cannot be read as an image: {error}. Is the file complete?") from error
    return size[::-1] if turned else size


def _fitting(file: Path, photo: tuple[int, int]) -> npt.NDArray[np.int64]:
    """`_values` of a file with the aspect of its photo, `(H, W)`."""
    values = _values(file)
    if wrong := check_aspect(photo, values.shape):
        raise ImageError(f"{file} has {wrong}")
    return values


def _values(file: Path) -> npt.NDArray[np.int64]:
    """The region of every pixel as the file numbers it, `_NOWHERE` where it is transparent: `[H, W]`."""
    try:
        with open_image_file(file) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{file} cannot be read as an image: {error}. Is the file complete?") from error
    values = pixels.astype(np.int64)
    if values.ndim == 2:
        return values
    if values.ndim != 3 or not 2 <= values.shape[2] <= 4:
        raise ImageError(f"{file} has pixels {pixels.shape[2:]}; expected grey, palette, RGB or RGBA")
    colours = 1 if values.shape[2] == 2 else 3
    numbers = values[..., :colours] @ np.array([1, 256, 65536][:colours])
    if colours < values.shape[2]:
        numbers[values[..., -1] == 0] = _NOWHERE
    return numbers
