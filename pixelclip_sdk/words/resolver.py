"""Words as people give them → a vocabulary that fits the model."""

import functools
import logging
import threading

from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.errors import BackendError, VocabularyError
from pixelclip_sdk.support.hints import did_you_mean
from pixelclip_sdk.words.classes import check_list_name, class_lists
from pixelclip_sdk.words.vocabulary import Classes, Encoder, Vocabulary

__all__ = ["Words"]

_log = logging.getLogger(__name__)


class Words:
    """What a model knows of texts: its text encoder, loaded with the first words, and its vocabularies.

    Args:
        bundle: The model's files, if it has any.
        encoder: What embeds new words, in place of the bundle's.
        width: D, the width of the model's embeddings.
        threads: CPU threads of the bundle's text encoder; None for all.
    """

    def __init__(
        self, bundle: Bundle | None, encoder: Encoder | None, width: int, threads: int | None
    ) -> None:
        self._bundle, self._encoder = bundle, encoder
        self._width, self._threads = width, threads
        self._lock = threading.Lock()
        self._closed = False

    def resolve(self, classes: Classes | Vocabulary) -> Vocabulary:
        """The vocabulary of some words, or of a list's name; one that is given is checked.

        Raises:
            VocabularyError: The words cannot be used, there is no list of that name, or the vocabulary
                belongs to another model.
            BundleError: The model has no text encoder, and these are words.
            BackendError: It is closed, or the text encoder fails.
        """
        self._check_open()
        if isinstance(classes, Vocabulary):
            self._check_fits(classes)
            return classes
        if isinstance(classes, str) and (precomputed := self._precomputed(classes.strip())):
            return precomputed
        return Vocabulary.encode(classes, self._loaded())

    def close(self) -> None:
        """Release the text encoder; later calls raise."""
        with self._lock:
            self._closed, self._encoder = True, None

    def _loaded(self) -> Encoder:
        with self._lock:
            self._check_open()  # Again: loading takes a while.
            if self._encoder is None:
                if self._bundle is None:
                    raise VocabularyError("this segmenter has no text encoder; pass a Vocabulary")
                # Loaded with the first words, so that precomputed vocabularies start without it.
                from pixelclip_sdk.words.text_encoder import TextEncoder

                self._encoder = TextEncoder(self._bundle, threads=self._threads)
            return self._encoder

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the segmenter is closed; load another with Segmenter.from_pretrained")

    def _precomputed(self, name: str) -> Vocabulary | None:
        """The bundle's vocabulary of that name; None when words have to be embedded."""
        bundle = self._bundle
        if bundle is None:
            return None
        if name not in bundle.vocabularies:
            if "," in name or bundle.has_text_encoder or self._encoder or not bundle.vocabularies:
                check_list_name(name, {*bundle.vocabularies, *class_lists()})
                return None
            raise VocabularyError(
                f"{bundle.name} has no text encoder and no vocabulary {name[:60]!r}."
                f"{did_you_mean(name, bundle.vocabularies)} "
                f"It has: {', '.join(bundle.vocabularies)}"
            )
        vocabulary = Vocabulary.load(bundle.file(bundle.vocabularies[name]))
        made_with, now = (vocabulary.text_hash, vocabulary.templates), (bundle.text_hash, bundle.templates)
        if bundle.has_text_encoder and made_with != now and name in class_lists():
            _log.info("%s: the precomputed %s is of another text encoder; embedding it", bundle.name, name)
            return None
        self._check_fits(vocabulary)
        return vocabulary

    @functools.cached_property
    def _text_hash(self) -> str:
        """Of the text encoder that the bundle's words were made with; empty if there is nothing to tell."""
        bundle = self._bundle
        if bundle is None or bundle.has_text_encoder:
            return bundle.text_hash if bundle else ""
        files = map(bundle.file, bundle.vocabularies.values())
        return next((Vocabulary.load(file).text_hash for file in files), "")

    def _check_fits(self, vocabulary: Vocabulary) -> None:
        width = vocabulary.embeddings.shape[1]
        if width != self._width:
            raise VocabularyError(
                f"the vocabulary's embeddings are {width} wide, this model's {self._width}. "
                "Build the vocabulary with this model: pixelclip vocab build --model …"
            )
        expected = self._text_hash
        if vocabulary.text_hash and expected and vocabulary.text_hash != expected:
            raise VocabularyError(
                "the vocabulary was made with another text encoder than this model's; its embeddings mean "
                "something else here. Build it with this model: pixelclip vocab build --model …"
            )
