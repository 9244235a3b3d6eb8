"""Region maps: one PNG a photo whose pixel values, or colours, only tell regions apart."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import ImageError
from training.masks.source import NoMasksError, check_aspect, shrink

__all__ = ["RegionMaps", "photo_size"]


@dataclass(frozen=True)
class RegionMaps:
    """Hand-drawn regions, instances, anybody's segmentation: the numbers mean nothing.

    Attributes:
        maps: Folder with `REL/PATH.png` for the photo `REL/PATH.jpg`: grey or palette (the value is the
            region), 16 or 32 bits, or RGB (the colour is the region).
        background: Value of pixels without a region; None if every value is one, 0 as well. Of colours it is
            R + 256 G + 65536 B.
    """

    maps: Path
    background: int | None = None
    name = "regions"

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.int64]:
        """See `MaskSource`."""
        file = self.maps / f"{relative}.png"
        if not file.is_file():
            raise NoMasksError(f"there is no {file}")
        values = _values(file)
        if wrong := check_aspect(photo_size(photo), values.shape):
            raise ImageError(f"{file} has {wrong}")
        numbers = np.unique(values, return_inverse=True)[1].reshape(values.shape) + 1
        if self.background is not None:
            numbers[values == self.background] = 0
        return shrink(numbers, short_side)


def photo_size(photo: Path) -> tuple[int, int]:
    """`(H, W)` of a photo as it is shown, from its header alone.

    Raises:
        ImageError: It is no image.
    """
    try:
        with Image.open(photo) as image:
            size = image.size[::-1]
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF's orientation: lying on its side
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{photo} cannot be read as an image: {error}. Is the file complete?") from error
    return size[::-1] if turned else size


def _values(file: Path) -> npt.NDArray[np.int64]:
    """The region of every pixel as the file numbers it: `[H, W]`."""
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{file} cannot be read as an image: {error}. Is the file complete?") from error
    values = pixels.astype(np.int64)
    if values.ndim == 2:
        return values
    if values.ndim == 3 and values.shape[2] == 3:
        return values @ np.array([1, 256, 65536])
    raise ImageError(f"{file} has pixels {pixels.shape[2:]}; expected grey, palette or RGB")
