"""The file that holds one photo's masks: ``MASKS/REL/PATH.npz`` for the photo ``IMAGES/REL/PATH.jpg``.

Either of two layouts, by what they hold:

- a partition (superpixels, k-means): ``labels`` uint16 `[H, W]`, a region's number per pixel, 0 for pixels
  that no region covers;
- masks that may overlap (SAM's): ``masks`` uint8, bits packed along the last axis by `numpy.packbits`, and
  ``shape`` int64 `[3]`, their `(M, H, W)`.

H and W need not be the photo's, only its aspect.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.files import atomic_write
from training.masks.source import check_aspect

__all__ = ["read_masks", "write_masks"]

BoolArray = npt.NDArray[np.bool_]

_EXPECTED = "expected labels, integers [H, W] in 0-65535, or masks, bool [M, H, W]"


def write_masks(path: str | os.PathLike[str], regions: npt.NDArray[np.generic]) -> None:
    """Writes one photo's masks; whole or not at all.

    Args:
        path: The file, with the suffix ``.npz``; its folder is made.
        regions: A partition as integers `[H, W]` in 0-65535, 0 for pixels without a region; or masks that may
            overlap as bool `[M, H, W]`. M may be 0.

    Raises:
        ImageError: `regions` is of another kind.
        OutputError: The file cannot be written.
    """
    target = Path(path)
    regions = np.asarray(regions)
    if target.suffix != ".npz":
        raise ImageError(f"masks go to a .npz file, got {target}")
    if regions.size and min(regions.shape[-2:], default=0) == 0:
        raise ImageError(f"masks of no size: {regions.shape}; {_EXPECTED}")
    arrays: dict[str, npt.NDArray[np.generic]]
    if regions.ndim == 2 and np.issubdtype(regions.dtype, np.integer):
        if regions.size and not 0 <= int(regions.min()) <= int(regions.max()) <= 65535:
            raise ImageError(f"labels are {regions.min()} to {regions.max()}; {_EXPECTED}")
        arrays = {"labels": regions.astype(np.uint16)}
    elif regions.ndim == 3 and regions.dtype == np.bool_:
        arrays = {"masks": np.packbits(regions, axis=-1), "shape": np.array(regions.shape, np.int64)}
    else:
        raise ImageError(f"masks are {regions.dtype} {regions.shape}; {_EXPECTED}")
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_masks(
    path: str | os.PathLike[str],
    at: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]] | None = None,
    photo: tuple[int, int] | None = None,
) -> BoolArray:
    """Reads one photo's masks, whole or sampled.

    Args:
        path: The file.
        at: Rows and columns to sample, as fractions of the height and width in 0-1: float `[h]` and `[w]`.
            Many regions at full size take much memory; a crop of few pixels does not. None for all pixels.
        photo: The photo's `(H, W)`: masks of another aspect are refused. None not to check.

    Returns:
        bool `[M, H, W]`, or `[M, h, w]` if sampled. A region of a partition that no sample hits is left out;
        a mask that none hits is empty.

    Raises:
        ImageError: There is no such file, or it is damaged, of another layout or of another photo.
    """
    arrays = _load(Path(path))
    shape = arrays["labels"].shape if "labels" in arrays else tuple(int(n) for n in arrays["shape"][1:])
    if photo is not None and (wrong := check_aspect(photo, (shape[0], shape[1]))):
        raise ImageError(f"{path} has {wrong}; make it again")
    rows, columns = (
        np.arange(size) if at is None else np.clip((at[axis] * size).astype(np.int64), 0, size - 1)
        for axis, size in enumerate(shape)
    )
    if "labels" in arrays:
        labels = arrays["labels"][rows][:, columns]
        names = np.unique(labels)
        return np.asarray(labels[None] == names[names > 0][:, None, None])
    bits = arrays["masks"][:, rows]
    return np.unpackbits(bits, axis=-1, count=shape[1])[:, :, columns].astype(np.bool_)


def _load(file: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The checked arrays of a file."""
    try:
        # The file is opened here, for numpy leaves one that is no archive open.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise ImageError(f"{file} does not exist; make masks with training/make_masks.py") from error
    except Exception as error:  # a damaged archive may fail in any way
        raise ImageError(f"{file} is damaged or no .npz ({error}); make it again") from error
    if "labels" in arrays:
        labels = arrays["labels"]
        if labels.ndim == 2 and labels.dtype == np.uint16 and labels.size:
            return {"labels": labels}
    elif {"masks", "shape"} <= arrays.keys():
        masks, shape = arrays["masks"], arrays["shape"]
        if shape.shape == (3,) and shape.dtype == np.int64 and masks.dtype == np.uint8:
            count, height, width = (int(n) for n in shape)
            if min(height, width) > 0 and masks.shape == (count, height, -(-width // 8)):
                return {"masks": masks, "shape": shape}
    found = {name: f"{array.dtype} {array.shape}" for name, array in arrays.items()}
    raise ImageError(f"{file} is no file of masks: it has {found}; see training/masks/format.py")
