"""Checks the settings of a segmenter."""

import numbers
from typing import Literal

from pixelclip_sdk.errors import PixelClipError

__all__ = ["Refine", "check_threshold", "choose_refine"]

Refine = Literal["auto", "edges", "off"]
"""How labels get from the grid to the pixels: along the edges of the image, by interpolation alone, or as
recommended."""


def check_threshold(value: float | None) -> float | None:
    """Returns a threshold; raises PixelClipError if it is no cosine."""
    if value is not None and not (isinstance(value, numbers.Real) and -1 <= value <= 1):
        raise PixelClipError(f"threshold is {value!r}; expected a number from -1 to 1 (a cosine), or None")
    return value


def choose_refine(value: Refine | None, recommended: Literal["edges", "off"]) -> Literal["edges", "off"]:
    """Returns how to refine; ``"auto"`` means as recommended, None means ``"off"``.

    Raises PixelClipError for another value.
    """
    if value == "auto":
        return recommended
    if value is None:
        return "off"
    if value not in ("edges", "off"):
        raise PixelClipError(f'refine is {value!r}; expected "edges", "off" or "auto"')
    return value
