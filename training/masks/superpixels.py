"""Superpixels: regions of similar colour. They need no weights and know no objects."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.packages import imported
from training.masks.source import shrunk_size

__all__ = ["Felzenszwalb", "Slic"]


@dataclass(frozen=True)
class Slic:
    """Compact superpixels of about equal size (Achanta et al. 2012): k-means on position and colour."""

    segments: int = 100  # approximate number per photo
    compactness: float = 10.0  # weight of position against colour; higher values give squarer superpixels
    sigma: float = 1.0  # standard deviation of the blur applied first, in pixels
    name = "slic"
    on_gpus = False

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        """See `MaskSource`."""
        slic = imported("skimage.segmentation").slic
        settings = {"n_segments": self.segments, "compactness": self.compactness, "sigma": self.sigma}
        return slic(_small(photo, short_side), **settings, start_label=1)


@dataclass(frozen=True)
class Felzenszwalb:
    """Regions of any size that follow edges (Felzenszwalb and Huttenlocher 2004)."""

    scale: float = 200.0  # higher values give larger regions; applies to the photo at the wanted short side
    sigma: float = 0.8  # standard deviation of the blur applied first, in pixels
    min_size: int = 200  # smaller regions are merged with a neighbour, in pixels
    name = "felzenszwalb"
    on_gpus = False

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.int64]:  # noqa: ARG002
        """See `MaskSource`."""
        felzenszwalb = imported("skimage.segmentation").felzenszwalb
        small = _small(photo, short_side)
        return 1 + felzenszwalb(small, scale=self.scale, sigma=self.sigma, min_size=self.min_size)


def _small(photo: Path, short_side: int) -> npt.NDArray[np.uint8]:
    """Return the photo with a short side of at most `short_side`: uint8 `[H, W, 3]`."""
    image = load_image(photo)
    size = shrunk_size(image.shape[:2], short_side)
    if size == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=2.0))
