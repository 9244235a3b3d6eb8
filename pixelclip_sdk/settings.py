"""The settings of a segmenter, checked."""

import dataclasses
import numbers
from typing import Literal

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.tiles import Tiles, checked_tiles

__all__ = ["Refine", "Settings", "choose_refine"]

Refine = Literal["auto", "edges", "off"]
"""How labels get from the grid to the pixels: along the edges of the image, by interpolation alone, or as
recommended."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How labels are made, see `Segmenter.from_pretrained`; raises PixelClipError for other values."""

    threshold: float | None = None
    refine: Literal["edges", "off"] = "off"
    tiles: Tiles = 1

    def __post_init__(self) -> None:
        value = self.threshold
        if value is not None and not (isinstance(value, numbers.Real) and -1 <= value <= 1):
            raise PixelClipError(
                f"threshold is {value!r}; expected a number from -1 to 1 (a cosine), or None"
            )
        checked_tiles(self.tiles)

    def override(
        self, *, threshold: float | None = None, refine: Refine | None = "auto", tiles: Tiles | None = None
    ) -> "Settings":
        """Returns the settings of one call. None, or ``"auto"`` for `refine`, keeps a setting."""
        return Settings(
            threshold=self.threshold if threshold is None else threshold,
            refine=choose_refine(refine, self.refine),
            tiles=self.tiles if tiles is None else tiles,
        )


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
