"""COCO's run-length encoding of masks."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.support.packages import imported

__all__ = ["decode_mask"]

_MAX_BITS = 60  # of a run
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 2**26)  # as Pillow, which refuses larger images


def decode_mask(code: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Decode ``{"size": [H, W], "counts": …}``, with counts as a string or a list of runs: bool `[H, W]`.

    Raises ValueError if the code is invalid, its runs do not fill the mask, or it is larger than any photo.
    """
    mask = imported("pycocotools.mask")
    try:
        height, width = (int(side) for side in code["size"])
        counts = code["counts"]
        if height * width > _MAX_PIXELS:
            raise ValueError(f"the mask is {height}×{width}; expected at most {_MAX_PIXELS} pixels")
        # pycocotools does not check this: it returns uninitialised memory if runs end too early.
        runs = counts if isinstance(counts, list) else _runs(counts)
        if min(height, width, *runs) < 0 or sum(runs) != height * width:
            raise ValueError(f"the runs sum up to {sum(runs)}, the mask is {height}×{width}")
        if isinstance(counts, list):
            code = mask.frPyObjects(code, height, width)
        with warnings.catch_warnings():
            # pycocotools' array type lacks an argument of numpy 2; the result is right.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return mask.decode(code).astype(np.bool_)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(f"no run-length code: {error!r}") from error


def _runs(text: str | bytes) -> list[int]:
    """Return the runs of a compressed code.

    Each character holds five bits, the lowest first; from the fourth run on, a run is stored as the
    difference to the run two before it.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > _MAX_BITS:
            raise ValueError("a run has more bits than any mask has pixels")
        if bits & 0x20:  # the run continues in the next character
            continue
        if bits & 0x10:  # negative
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
