"""YAML from files that others made."""

import re
from typing import Any

import yaml

__all__ = ["parse_yaml"]

# PyYAML's time grows with the square of the number of brackets that are open.
_MAX_DEPTH = 100


def parse_yaml(text: str) -> Any:
    """Like ``yaml.safe_load``, with one kind of error.

    Raises:
        ValueError: The text is not YAML, is nested too deeply, or has a value that Python does not take: a
            date that does not exist, a number of more than 4300 digits.
    """
    if _open_brackets(text) > _MAX_DEPTH:
        raise ValueError(f"its values are nested more than {_MAX_DEPTH} levels deep")
    try:
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    except ValueError:
        raise
    except Exception as error:  # Besides its own errors, PyYAML raises those of the types that it makes.
        raise ValueError(str(error) or type(error).__name__) from error


def _open_brackets(text: str) -> int:
    """The most brackets that are open at the same time; those in texts and comments count too."""
    most = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(depth + (1 if bracket in "[{" else -1), 0)
        most = max(most, depth)
    return most
