"""Argument types for argparse: checked numbers and paths."""

import argparse
import math
from pathlib import Path


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 1")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number greater than 0."""
    value = not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0; expected a number greater than 0")
    return value


def not_negative(text: str) -> float:
    """Parse a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}; expected a finite number of at least 0")
    return value


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}; expected a number from 0 to 1")
    return value


def confidences(text: str) -> float | dict[str, float]:
    """Parse ``0.5``, or one number per name: ``cat=0.5, dog=0.3``."""
    if "=" not in text:
        return share(text)
    result = {}
    for part in text.split(","):
        name, sign, value = part.rpartition("=")
        if not sign or not name.strip():
            raise argparse.ArgumentTypeError(f"{part.strip()!r}; expected NAME=NUMBER, e.g. cat=0.5")
        result[name.strip()] = share(value)
    return result


def path(text: str) -> Path:
    """Parse a path. ``~`` is expanded: the shell does not do it in ``--out=~/results``."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; name a file or a folder (. is the current folder)")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: there is no such home folder") from error
