"""What several commands read from their command lines."""

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary, read_classes

__all__ = ["read_words"]


def read_words(given: str | None) -> Classes | None:
    """Classes that are to be embedded; None where none are given.

    Args:
        given: A list's name, a file, or ``"a, b"``; see `pixelclip_sdk.words.vocabulary.read_classes`.

    Raises:
        VocabularyError: The words cannot be read, or are embeddings already.
    """
    classes = None if given is None else read_classes(given)
    if isinstance(classes, Vocabulary):
        raise VocabularyError(f"{given} is a vocabulary of embeddings; expected words, to embed them here")
    return classes
