"""Labels of names."""

import numbers
from collections.abc import Sequence

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.support.hints import did_you_mean, find_name, folded

__all__ = ["find_label"]


def find_label(name: str | int, names: Sequence[str], unknown: int) -> int:
    """Returns the label of a class.

    Args:
        name: A class name (case is ignored), ``"unknown"`` if no class has that name, or a label.
        names: The class names.
        unknown: The label of unknown pixels.

    Raises:
        VocabularyError: There is no such class.
    """
    if isinstance(name, numbers.Integral) and not isinstance(name, bool):
        if 0 <= name < len(names) or name == unknown:
            return int(name)
        raise VocabularyError(
            f"no class has label {name}; expected 0 to {len(names) - 1} or {unknown} (unknown)"
        )
    if not isinstance(name, str):
        raise VocabularyError(f"got {type(name).__name__} {name!r}; expected a class name or a label")
    if found := find_name(name, names):
        return list(names).index(found)
    if folded(name) == "unknown":
        return unknown
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    raise VocabularyError(
        f"no class {name!r} in this result.{did_you_mean(name, names)} Its classes: {listed}"
    )
