"""Command-line arguments that several commands share."""

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary, read_classes

__all__ = ["read_words"]


def read_words(given: str | None) -> Classes | None:
    """Reads class names from an argument; None if there is none.

    Args:
        given: The name of a list, a file, or ``"a, b"``; see `pixelclip_sdk.words.vocabulary.read_classes`.

    Raises:
        VocabularyError: The words cannot be read, or are already embeddings.
    """
    classes = None if given is None else read_classes(given)
    if isinstance(classes, Vocabulary):
        raise VocabularyError(f"{given} is a vocabulary of embeddings; expected words")
    return classes
