"""What commands read from their command lines."""

import argparse

__all__ = ["positive"]


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse's `type`."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected at least 1")
    return value
