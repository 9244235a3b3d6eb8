"""The settings of a segmenter, checked."""

import dataclasses
import numbers
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import PixelClipError, VocabularyError
from pixelclip_sdk.support.hints import did_you_mean, find_name
from pixelclip_sdk.tiles import Tiles, checked_tiles
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = [
    "Limits",
    "Refine",
    "Settings",
    "check_names",
    "choose_refine",
    "least_confidences",
    "plain_limits",
]

Refine = Literal["auto", "edges", "off"]
"""How labels get from the grid to the pixels: along the edges of the image, by interpolation alone, or as
recommended."""

Limits = float | Mapping[str, float] | None
"""Smallest confidence, 0–1, of all classes or of the named ones; None for no limit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How labels are made, see `Segmenter.from_pretrained`; raises PixelClipError for other values."""

    threshold: float | None = None
    min_confidence: Limits = None
    background: Vocabulary | None = None
    refine: Literal["edges", "off"] = "off"
    tiles: Tiles = 1

    def __post_init__(self) -> None:
        value = self.threshold
        if value is not None and not _within(value, -1, 1):
            raise PixelClipError(
                f"threshold is {value!r}; expected a number from -1 to 1 (a cosine), or None"
            )
        if isinstance(self.min_confidence, Mapping):
            for name, limit in self.min_confidence.items():
                _check_confidence(limit, f"min_confidence of {name!r}")
            object.__setattr__(self, "min_confidence", MappingProxyType(dict(self.min_confidence)))
        elif self.min_confidence is not None:
            _check_confidence(self.min_confidence, "min_confidence")
        checked_tiles(self.tiles)

    def override(
        self,
        *,
        threshold: float | None = None,
        min_confidence: Limits = None,
        background: Vocabulary | None = None,
        refine: Refine | None = "auto",
        tiles: Tiles | None = None,
    ) -> "Settings":
        """Returns the settings of one call. None, or ``"auto"`` for `refine`, keeps a setting."""
        return Settings(
            threshold=self.threshold if threshold is None else threshold,
            min_confidence=self.min_confidence if min_confidence is None else min_confidence,
            background=background or self.background,
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


def check_names(limits: Limits, names: Sequence[str]) -> None:
    """Raise VocabularyError if limits name something else than `names`."""
    for name in limits if isinstance(limits, Mapping) else ():
        if not find_name(name, names):
            raise VocabularyError(
                f"min_confidence names {name!r}, which is no class.{did_you_mean(name, names)} "
                f"Classes: {', '.join(names[:20])}"
            )


def plain_limits(limits: Limits) -> float | dict[str, float] | None:
    """Return limits that can be pickled and written as JSON."""
    return dict(limits) if isinstance(limits, Mapping) else limits


def least_confidences(
    limits: float | Mapping[str, float], names: Sequence[str], unknown: int
) -> npt.NDArray[np.float32]:
    """Return the smallest confidence of every label, `(unknown + 1,)` float32: 0 without a limit."""
    if not isinstance(limits, Mapping):
        return np.full(unknown + 1, limits, np.float32)
    least = np.zeros(unknown + 1, np.float32)
    for name, limit in limits.items():
        if found := find_name(name, names):
            least[names.index(found)] = limit
    return least


def _check_confidence(value: object, what: str) -> None:
    if not _within(value, 0, 1):
        raise PixelClipError(f"{what} is {value!r}; expected a number from 0 to 1 (a confidence)")


def _within(value: Any, low: float, high: float) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and low <= float(value) <= high
