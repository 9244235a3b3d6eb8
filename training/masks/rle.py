"""COCO's run-length codes of masks."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.support.packages import imported

__all__ = ["decode_mask"]


def decode_mask(code: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """One mask.

    Args:
        code: ``{"size": [H, W], "counts": …}``; the counts are a text, as in files, or a list of runs.

    Returns:
        bool `[H, W]`.

    Raises:
        ValueError: It is no such code, or its runs do not fill the mask.
        BackendUnavailableError: pycocotools is not installed.
    """
    mask = imported("pycocotools.mask")
    try:
        height, width = (int(side) for side in code["size"])
        counts = code["counts"]
        # pycocotools does not check this: where runs end too early it returns memory that nobody set.
        runs = counts if isinstance(counts, list) else _runs(counts)
        if min(height, width, *runs) < 0 or sum(runs) != height * width:
            raise ValueError(f"the runs sum up to {sum(runs)}, the mask is {height}×{width}")
        if isinstance(counts, list):
            code = mask.frPyObjects(code, height, width)
        with warnings.catch_warnings():
            # pycocotools' array type lacks an argument that numpy 2 introduced; the result is right.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            return mask.decode(code).astype(np.bool_)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"no run-length code: {error!r}") from error


def _runs(text: str | bytes) -> list[int]:
    """The runs of a packed code: five bits a character, lowest first, from the fourth as differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text.encode() if isinstance(text, str) else text:
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:  # more of this run follows
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
