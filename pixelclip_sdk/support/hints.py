"""Suggest the nearest known name in an error message."""

import difflib
import unicodedata
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'cat'?`` with a leading space, or an empty string if no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def folded(name: str) -> str:
    """Return the form of a name in which upper and lower case and both Unicode forms are equal."""
    return unicodedata.normalize("NFC", name.casefold())


def find_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that equals `name`, else one that differs only in case or Unicode form."""
    known = list(known)
    return name if name in known else next((other for other in known if folded(other) == folded(name)), None)
