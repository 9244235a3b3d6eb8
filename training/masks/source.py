"""What makes masks out of a photo, and what all of them share."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import PixelClipError

__all__ = ["MaskSource", "NoMasksError", "check_aspect", "settings_of", "shrink", "shrunk_size", "tidy"]

Regions = npt.NDArray[np.generic]


class NoMasksError(PixelClipError):
    """A photo has no mask that could teach anything; it is left out, and that is no fault of its file."""


class MaskSource(Protocol):
    """One way to masks. A frozen dataclass, so that it travels to other processes and tells its settings.

    Attributes:
        name: For people.
        on_gpus: It computes with torch, on a GPU if there is one.
    """

    name: str
    on_gpus: bool

    def __call__(self, photo: Path, relative: Path, short_side: int) -> Regions:
        """Masks of one photo.

        Args:
            photo: Its file.
            relative: The same below the folder of photos, without the suffix.
            short_side: About the size wanted; a source may give less, or more.

        Returns:
            A partition, integers `[H, W]`, 0 where there is no region; or masks that may overlap, bool
            `[M, H, W]`.

        Raises:
            NoMasksError: There are none for this photo.
            ImageError: The photo, or the file with its masks, is damaged.
        """


def settings_of(source: MaskSource) -> dict[str, Any]:
    """A source's settings, JSON-ready: equal settings make equal masks.

    Fields that do not compare are left out: where weights lie is no setting, their hash is. Paths are
    absolute, so that a folder is the same from wherever the command is called.
    """
    values = {
        field.name: getattr(source, field.name) for field in dataclasses.fields(source) if field.compare
    }
    return {key: str(value.resolve()) if isinstance(value, Path) else value for key, value in values.items()}


def tidy(regions: Regions) -> Regions:
    """Drops what teaches nothing: empty masks, and those that cover the whole photo.

    A mask over everything says that all pixels belong together. The loss would then push every pixel of the
    photo to one cluster, which is the collapse that the other masks work against.

    Args:
        regions: As a source gives them.

    Returns:
        The same kind; regions of a partition are numbered from 1 without gaps, as uint16.

    Raises:
        NoMasksError: Nothing is left.
    """
    if regions.ndim == 3:
        kept = regions[regions.any(axis=(1, 2)) & ~regions.all(axis=(1, 2))]
        if not len(kept):
            raise NoMasksError(f"of {len(regions)} masks all are empty or cover the whole photo")
        return kept
    values, numbers = np.unique(regions, return_inverse=True)
    if len(values) == 1:
        raise NoMasksError("one region covers the whole photo" if values[0] else "no region in it")
    if len(values) > 65535:
        raise NoMasksError(f"{len(values)} regions; a file holds at most 65535")
    # np.unique counts from 0; that is right only if some pixels have no region.
    return (numbers + (values[0] != 0)).reshape(regions.shape).astype(np.uint16)


def shrunk_size(size: Sequence[int], short_side: int) -> tuple[int, int]:
    """`(H, W)` with a short side of at most `short_side`, the aspect kept; never larger than `size`."""
    scale = min(short_side / min(size), 1)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def shrink(regions: Regions, short_side: int) -> Regions:
    """Takes the nearest pixel of each cell of a coarser raster.

    Args:
        regions: `[..., H, W]`.
        short_side: Wanted short side in pixels; smaller arrays are returned as they are.
    """
    size = regions.shape[-2:]
    rows, columns = (
        ((np.arange(small) + 0.5) * large / small).astype(np.intp)
        for small, large in zip(shrunk_size(size, short_side), size, strict=True)
    )
    return regions if len(rows) == size[0] else regions[..., rows[:, None], columns]


def check_aspect(photo: tuple[int, int], masks: tuple[int, int]) -> str:
    """What is wrong if masks `(H, W)` do not fit a photo `(H, W)`; empty if nothing is.

    Both may have been resized, each rounded on its own, so that two pixels may lie between them; and masks of
    patches, which a remainder was cut off in height and width, lack up to one patch in each.
    """
    aspect = photo[1] / photo[0]
    if abs(masks[0] * aspect - masks[1]) <= max(2, 2 * masks[1] / photo[1], 1 + aspect):
        return ""
    return f"masks of {masks[0]}×{masks[1]} for a photo of {photo[0]}×{photo[1]}; expected the same aspect"
