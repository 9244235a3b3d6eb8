"""JSON from files that others made."""

import json
import os
from pathlib import Path
from typing import Any

# Deeper values would exceed Python's recursion limit in whatever walks through them later.
_MAX_DEPTH = 100


def parse_json(text: str | bytes) -> Any:
    """Like ``json.loads``, with one kind of error, and without values nested more than 100 levels deep.

    Raises:
        ValueError: The text is not JSON, or is nested too deeply.

    Examples:
        >>> parse_json('{"cat": [1, 2]}')
        {'cat': [1, 2]}
    """
    try:
        value = json.loads(text)
    except RecursionError:
        value = None
        depth = _MAX_DEPTH + 1
    else:
        depth = _depth(value)
    if depth > _MAX_DEPTH:
        raise ValueError(f"its values are nested more than {_MAX_DEPTH} levels deep")
    return value


def read_json(file: str | os.PathLike[str]) -> Any:
    """Read a JSON file in UTF-8; see `parse_json`.

    Raises:
        OSError: The file cannot be read.
        ValueError: It does not hold JSON.
    """
    return parse_json(Path(file).read_text(encoding="utf-8"))


def _depth(value: Any) -> int:
    """Count the levels of lists and objects, without recursion, up to one more than allowed."""
    depth, level = 0, [value]
    while (level := [item for item in level if isinstance(item, dict | list)]) and depth <= _MAX_DEPTH:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth
