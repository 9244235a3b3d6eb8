"""The file of one photo's masks: ``MASKS/REL/PATH.npz`` for the photo ``IMAGES/REL/PATH.jpg``.

It has one of two layouts:

- a partition (superpixels, k-means): ``labels`` uint16 `[H, W]`, the region of each pixel, 0 for none;
- masks that may overlap (SAM): ``masks`` uint8, packed along the last axis by `numpy.packbits`, and ``shape``
  int64 `[3]`, their `(M, H, W)`.

`(H, W)` has the aspect of the photo, but may be smaller.
"""

import os
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.files import atomic_write
from training.masks.source import check_aspect

__all__ = ["read_masks", "write_masks"]

BoolArray = npt.NDArray[np.bool_]

_EXPECTED = "expected labels, integers [H, W] in 0-65535, or masks, bool [M, H, W]"
# Bounds of memory: a small file may decompress to gigabytes.
_MAX_BYTES = 2**27  # arrays of a file
_MAX_PIXELS = 2**30  # M × H × W


def write_masks(path: str | os.PathLike[str], regions: npt.NDArray[np.generic]) -> None:
    """Write one photo's masks to a ``.npz`` file, completely or not at all; its folder is created.

    `regions` are a partition, integers `[H, W]` in 0-65535 with 0 for pixels without a region; or masks that
    may overlap, bool `[M, H, W]`. Raises ImageError for another type or shape, or if they are too large.
    """
    target = Path(path)
    regions = np.asarray(regions)
    if target.suffix != ".npz":
        raise ImageError(f"got {target}; expected a .npz file")
    if regions.size and min(regions.shape[-2:], default=0) == 0:
        raise ImageError(f"masks of no size: {regions.shape}; {_EXPECTED}")
    arrays: dict[str, npt.NDArray[np.generic]]
    if regions.ndim == 2 and np.issubdtype(regions.dtype, np.integer):
        if regions.size and not 0 <= int(regions.min()) <= int(regions.max()) <= 65535:
            raise ImageError(f"labels are {regions.min()} to {regions.max()}; {_EXPECTED}")
        arrays = {"labels": regions.astype(np.uint16)}
    elif regions.ndim == 3 and regions.dtype == np.bool_:
        _check_pixels(target, *regions.shape)
        arrays = {"masks": np.packbits(regions, axis=-1), "shape": np.array(regions.shape, np.int64)}
    else:
        raise ImageError(f"masks are {regions.dtype} {regions.shape}; {_EXPECTED}")
    _check_bytes(target, sum(array.nbytes for array in arrays.values()))
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_masks(
    path: str | os.PathLike[str],
    at: tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]] | None = None,
    photo: tuple[int, int] | None = None,
) -> BoolArray:
    """Read one photo's masks, bool `[M, H, W]`, or sample them at rows and columns, `[M, h, w]`.

    `at` has the rows and columns as fractions of height and width, float `[h]` and `[w]`. Reading all pixels
    takes much memory for many regions. A region of a partition without a sample is left out; a mask without
    one is empty. Raises ImageError if the file does not exist, is damaged or too large, or has another aspect
    than the photo of size `(H, W)`.
    """
    file = Path(path)
    arrays = _load(file)
    shape = arrays["labels"].shape if "labels" in arrays else tuple(int(n) for n in arrays["shape"][1:])
    if photo is not None and (problem := check_aspect(photo, (shape[0], shape[1]))):
        raise ImageError(f"{file} has {problem}; make it again")
    rows, columns = (
        np.arange(size) if at is None else np.clip((at[axis] * size).astype(np.int64), 0, size - 1)
        for axis, size in enumerate(shape)
    )
    if "labels" in arrays:
        labels = arrays["labels"][rows][:, columns]
        regions = np.unique(labels)
        regions = regions[regions > 0]
        _check_pixels(file, len(regions), *labels.shape)
        return np.asarray(labels[None] == regions[:, None, None])
    _check_pixels(file, len(arrays["masks"]), len(rows), len(columns))
    # packbits stores eight columns per byte, the first in the highest bit.
    packed = arrays["masks"][:, rows[:, None], columns // 8]
    return np.asarray(packed & (128 >> columns % 8).astype(np.uint8), np.bool_)


def _load(file: Path) -> dict[str, npt.NDArray[np.generic]]:
    """Return the arrays of a file after checking its layout."""
    try:
        # Opened here, because numpy does not close a file that is no archive.
        with file.open("rb") as stream:
            with zipfile.ZipFile(stream) as members:
                _check_bytes(file, sum(member.file_size for member in members.infolist()))
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                # numpy returns other members as bytes.
                arrays = {
                    name: value for name in archive.files if isinstance(value := archive[name], np.ndarray)
                }
    except FileNotFoundError as error:
        raise ImageError(f"{file} does not exist; make masks with training/make_masks.py") from error
    except ImageError:
        raise
    except Exception as error:  # zipfile and numpy raise many types for damaged archives
        raise ImageError(f"{file} is damaged or no .npz file ({error}); make it again") from error
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


def _check_bytes(file: Path, size: int) -> None:
    if size > _MAX_BYTES + 1024:  # headers
        raise ImageError(
            f"{file}: arrays of {size / 1e6:.0f} MB; expected at most {_MAX_BYTES / 1e6:.0f} MB. Make masks "
            "with a smaller --side"
        )


def _check_pixels(file: Path, count: int, height: int, width: int) -> None:
    if count * height * width > _MAX_PIXELS:
        raise ImageError(
            f"{file}: {count} masks of {height}×{width} pixels need {count * height * width / 1e9:.1f} GB; "
            f"expected at most {_MAX_PIXELS / 1e9:.1f} GB. Make fewer masks, or use a smaller --side"
        )
