"""The protocol of a source of masks, and helpers that all sources share."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError, PixelClipError

__all__ = [
    "MaskSource",
    "NoMasksError",
    "check_aspect",
    "drop_useless",
    "settings_of",
    "shrink",
    "shrunk_size",
    "stack_masks",
]

Regions = npt.NDArray[np.generic]


class NoMasksError(PixelClipError):
    """A photo has no usable mask. It is skipped; its file is not damaged."""


class MaskSource(Protocol):
    """A source of masks: a frozen dataclass, so that it can be pickled and its fields are its settings."""

    name: str  # in messages and in masks.json
    on_gpus: bool  # whether it computes with torch, on a GPU if there is one

    def __call__(self, photo: Path, relative: Path, short_side: int) -> Regions:
        """Return a photo's masks: integers `[H, W]`, 0 for no region; or bool `[M, H, W]`, which may overlap.

        `relative` is the photo's path below the folder of photos, without suffix. The short side is in
        pixels; a source may return another size. Raises NoMasksError if the photo has no masks, and
        ImageError if the photo or the file of its masks is damaged.
        """


def settings_of(source: MaskSource) -> dict[str, Any]:
    """Return a source's settings as JSON values. Equal settings make equal masks.

    Fields with ``compare=False`` are left out, for example the path of weights; their hash is a setting.
    Paths are made absolute.
    """
    names = [field.name for field in dataclasses.fields(source) if field.compare]
    values = {name: getattr(source, name) for name in names}
    return {key: str(value.resolve()) if isinstance(value, Path) else value for key, value in values.items()}


def drop_useless(regions: Regions) -> Regions:
    """Drop empty masks and masks over the whole photo, which would push all pixels into one cluster.

    Regions of a partition are numbered from 1 without gaps, as uint16. Raises NoMasksError if no mask is
    left, or for more than 65535 regions.
    """
    if regions.ndim == 3:
        kept = regions[regions.any(axis=(1, 2)) & ~regions.all(axis=(1, 2))]
        if not len(kept):
            raise NoMasksError(f"all of {len(regions)} masks are empty or cover the whole photo")
        return kept
    values, numbers = np.unique(regions, return_inverse=True)
    if len(values) == 1:
        raise NoMasksError("one region covers the whole photo" if values[0] else "the photo has no region")
    if len(values) > 65535:
        raise NoMasksError(f"{len(values)} regions; a file holds at most 65535")
    # np.unique counts from 0, which is right only if some pixels have no region.
    return (numbers + (values[0] != 0)).reshape(regions.shape).astype(np.uint16)


def stack_masks(masks: Sequence[npt.NDArray[np.bool_]], origin: Path) -> npt.NDArray[np.bool_]:
    """Stack the masks `[H, W]` of one photo, which come from a file or folder: bool `[M, H, W]`."""
    if not masks:
        raise NoMasksError(f"{origin} has no masks")
    if len({mask.shape for mask in masks}) > 1:
        raise ImageError(f"{origin} has masks of several sizes; expected one size")
    return np.stack(masks)


def shrunk_size(size: Sequence[int], short_side: int) -> tuple[int, int]:
    """Return `(H, W)` scaled down to a short side of at most `short_side`, with the same aspect."""
    scale = min(short_side / min(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def shrink(regions: Regions, short_side: int) -> Regions:
    """Scale regions `[..., H, W]` down to a short side by nearest neighbour; smaller ones stay."""
    size = regions.shape[-2:]
    rows, columns = (
        ((np.arange(small) + 0.5) * large / small).astype(np.intp)
        for small, large in zip(shrunk_size(size, short_side), size, strict=True)
    )
    return regions if len(rows) == size[0] else regions[..., rows[:, None], columns]


def check_aspect(photo: tuple[int, int], masks: tuple[int, int]) -> str:
    """Return an error message if masks `(H, W)` do not have the aspect of a photo `(H, W)`, else "".

    Rounding of both sizes allows a difference of two pixels. Masks on a patch grid may lack up to one patch
    in each direction.
    """
    aspect = photo[1] / photo[0]
    if abs(masks[0] * aspect - masks[1]) <= max(2, 2 * masks[1] / photo[1], 1 + aspect):
        return ""
    return f"masks of {masks[0]}×{masks[1]} for a photo of {photo[0]}×{photo[1]}; expected the same aspect"
