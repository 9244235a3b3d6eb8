"""What several commands read from their command lines."""

import argparse
import math

from pixelclip_sdk._arguments import positive
from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.vocabulary import Classes, Vocabulary, read_classes

__all__ = ["not_negative", "positive", "positive_float", "read_words"]


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


def read_words(given: str | None) -> Classes | None:
    """Classes that are to be embedded; None where none are given.

    Args:
        given: A list's name, a file, or ``"a, b"``; see `pixelclip_sdk.vocabulary.read_classes`.

    Raises:
        VocabularyError: The words cannot be read, or are embeddings already.
    """
    classes = None if given is None else read_classes(given)
    if isinstance(classes, Vocabulary):
        raise VocabularyError(f"{given} is a vocabulary of embeddings; expected words, to embed them here")
    return classes
