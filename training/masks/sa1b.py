"""SA-1B: SAM's masks as published by Meta, one JSON file of run-length codes per photo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.json_files import read_json
from training.masks.region_maps import photo_size
from training.masks.rle import decode_mask
from training.masks.source import NoMasksError, check_aspect, shrink, stack_masks

__all__ = ["SA1B"]


@dataclass(frozen=True)
class SA1B:
    """Files ``{"image": {…}, "annotations": [{"segmentation": {"size": [H, W], "counts": …}, …}]}``.

    The list of annotations alone, as written by segment-anything's ``amg.py --convert-to-rle``, is read too.
    """

    annotations: Path  # folder with REL/PATH.json for the photo REL/PATH.jpg
    name = "sa1b"
    on_gpus = False

    def __call__(self, photo: Path, relative: Path, short_side: int) -> npt.NDArray[np.bool_]:
        """See `MaskSource`."""
        file = self.annotations / f"{relative}.json"
        try:
            content = read_json(file)
            entries = content if isinstance(content, list) else content["annotations"]
            if not isinstance(entries, list):
                raise TypeError(f"annotations are {type(entries).__name__}; expected a list")
        except FileNotFoundError as error:
            raise NoMasksError(f"there is no {file}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{file} is no annotation of SA-1B, or damaged: {error!r}") from error
        size = photo_size(photo)
        # Shrunk one by one: together they may take hundreds of megabytes at full size.
        return stack_masks([shrink(_decode(file, entry, size), short_side) for entry in entries], file)


def _decode(file: Path, entry: Any, photo: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Decode one annotation of a photo of size `(H, W)`."""
    try:
        mask = decode_mask(entry["segmentation"])
        if not mask.size:
            raise ValueError(f"it has {mask.shape[0]}×{mask.shape[1]} pixels")
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{file} has a mask that cannot be decoded: {error!r}") from error
    if problem := check_aspect(photo, mask.shape):
        raise ImageError(f"{file} has {problem}")
    return mask
