"""Command-line arguments that several commands share."""

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary, read_classes

__all__ = ["read_words"]


def read_words(given: str | None) -> Classes | None:
    """Reads class names like `read_classes`, but refuses embeddings; None if there is no argument."""
    classes = None if given is None else read_classes(given)
    if isinstance(classes, Vocabulary):
        raise VocabularyError(f"{given} is a vocabulary of embeddings; expected words")
    return classes
