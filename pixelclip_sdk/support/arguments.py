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


def path(text: str) -> Path:
    """Parse a path. ``~`` is expanded: the shell does not do it in ``--out=~/results``."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; name a file or a folder (. is the current folder)")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: there is no such home folder") from error
