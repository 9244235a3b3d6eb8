"""Types for argparse: numbers that are checked."""

import argparse
import math

__all__ = ["not_negative", "positive", "positive_float"]


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse's `type`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 1")
    return value


def positive_float(text: str) -> float:
    """A number of more than 0, for argparse's `type`."""
    value = not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError("0; expected more")
    return value


def not_negative(text: str) -> float:
    """A number of at least 0, for argparse's `type`."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}; expected at least 0, and finite")
    return value
