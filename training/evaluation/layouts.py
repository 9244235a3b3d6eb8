"""File layouts and label ids of the public data sets, read from ``layouts.yaml``.

To add a data set, add its class list to `pixelclip_sdk/assets/classes` and its layout to the file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX

__all__ = ["LAYOUTS", "Layout", "label_ids"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Location of a data set's files below its root; ``layouts.yaml`` explains the paths.

    Attributes:
        ids: Label id → class index, `BACKGROUND` or `IGNORE_INDEX`.
    """

    photo: str
    label: str
    ids: Mapping[int, int]
    split: str = ""
    photos: int | None = None
    listing: str = ""
    suffix: str = ""
    alternative: str = ""


def label_ids(
    scored: Iterable[int], ignored: Iterable[int], background: Iterable[int] = ()
) -> dict[int, int]:
    """Maps label ids to class indices, in the given order, and others to `IGNORE_INDEX` or `BACKGROUND`."""
    return {
        **dict.fromkeys(ignored, IGNORE_INDEX),
        **dict.fromkeys(background, BACKGROUND),
        **{label: i for i, label in enumerate(scored)},
    }


def _numbers(ranges: object) -> list[int]:
    """Reads numbers and ranges: ``"0-2 7"`` is 0, 1, 2, 7."""
    numbers: list[int] = []
    for part in str(ranges).split():
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _layout(entry: dict[str, Any]) -> Layout:
    ids = label_ids(*(_numbers(entry.pop(kind, "")) for kind in ("scored", "ignored", "background")))
    return Layout(ids=ids, **entry)


LAYOUTS = {
    name: _layout(entry)
    for name, entry in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8")).items()
}
