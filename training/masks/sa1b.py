"""SA-1B: SAM's masks as Meta published them, one JSON of run-length codes a photo."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError
from training.masks.region_maps import photo_size
from training.masks.rle import decode_mask
from training.masks.source import NoMasksError, check_aspect, shrink

__all__ = ["SA1B"]


@dataclass(frozen=True)
class SA1B:
    """Files ``{"image": {…}, "annotations": [{"segmentation": {"size": [H, W], "counts": …}, …}]}``.

    Or the list of annotations alone, which segment-anything's ``amg.py --convert-to-rle`` writes.

    Attributes:
        annotations: Folder with `REL/PATH.json` for the photo `REL/PATH.jpg`; SA-1B's archives have both in
            one folder.
    """

    annotations: Path
    name = "sa1b"
    on_gpus = False

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.bool_]:
        """See `MaskSource`."""
        file = self.annotations / f"{relative}.json"
        try:
            content = json.loads(file.read_bytes())
            entries = content if isinstance(content, list) else content["annotations"]
            if not isinstance(entries, list):
                raise TypeError(f"annotations are {type(entries).__name__}; expected a list")
        except FileNotFoundError as error:
            raise NoMasksError(f"there is no {file}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{file} is no annotation of SA-1B, or damaged: {error!r}") from error
        size = photo_size(photo)
        # One by one: a hundred masks of a large photo take hundreds of megabytes before they are shrunk.
        masks = [shrink(self._decode(file, entry, size), short_side) for entry in entries]
        if not masks:
            raise NoMasksError(f"{file} lists no masks")
        if len({mask.shape for mask in masks}) > 1:
            raise ImageError(f"{file} has masks of several sizes; expected the photo's")
        return np.stack(masks)

    @staticmethod
    def _decode(file: Path, entry: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        try:
            mask = decode_mask(entry["segmentation"])
            if not mask.size:
                raise ValueError(f"it is of {mask.shape[0]}×{mask.shape[1]} pixels")
        except (ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{file} has a mask that cannot be decoded: {error!r}") from error
        if wrong := check_aspect(size, mask.shape):
            raise ImageError(f"{file} has {wrong}")
        return mask
