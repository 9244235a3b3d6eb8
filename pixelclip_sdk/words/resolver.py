"""VocabularyResolver: words as people give them to a vocabulary that fits the model."""

import functools
import logging
import threading

from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.errors import BackendError, VocabularyError
from pixelclip_sdk.support.hints import did_you_mean, find_name
from pixelclip_sdk.words.classes import check_list_name, class_lists
from pixelclip_sdk.words.vocabulary import Classes, Encoder, Vocabulary

_log = logging.getLogger(__name__)


class VocabularyResolver:
    """Makes vocabularies for one model. Thread-safe; the text encoder is loaded with the first words.

    The arguments are those of `pixelclip_sdk.Segmenter`, and the width D of the model's embeddings.
    """

    def __init__(
        self, bundle: Bundle | None, encoder: Encoder | None, width: int, threads: int | None
    ) -> None:
        self._bundle, self._encoder = bundle, encoder
        self._width, self._threads = width, threads
        self._lock = threading.Lock()
        self._closed = False

    def resolve(self, classes: Classes | Vocabulary) -> Vocabulary:
        """Return the vocabulary of words or of a list's name; see `pixelclip_sdk.Segmenter.set_classes`.

        A `Vocabulary` is checked and returned.
        """
        self._check_open()
        if isinstance(classes, Vocabulary):
            return self._checked(classes)
        if isinstance(classes, str) and (precomputed := self._precomputed(classes.strip())):
            return precomputed
        encoder = self._loaded_encoder()
        vocabulary = self._checked(Vocabulary.encode(classes, encoder))
        # Encoders of users need not have this method.
        for word in getattr(encoder, "unfamiliar_words", lambda _: [])(vocabulary.names):
            _log.warning("the text encoder may not know %r; check the spelling, and use English words", word)
        return vocabulary

    def close(self) -> None:
        """Release the text encoder; later calls raise."""
        with self._lock:
            self._closed, self._encoder = True, None

    def _loaded_encoder(self) -> Encoder:
        with self._lock:
            self._check_open()  # Another thread may have closed it meanwhile.
            if self._encoder is None:
                if self._bundle is None:
                    raise VocabularyError("this segmenter has no text encoder; pass a Vocabulary")
                # Imported and loaded here, so that precomputed vocabularies start without it.
                from pixelclip_sdk.words.text_encoder import TextEncoder

                self._encoder = TextEncoder(self._bundle, threads=self._threads)
            return self._encoder

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("the segmenter is closed; load another with Segmenter.from_pretrained")

    def _precomputed(self, name: str) -> Vocabulary | None:
        """Return the bundle's vocabulary of that name, or None if words must be embedded."""
        bundle = self._bundle
        if bundle is None:
            return None
        name = find_name(name, bundle.vocabularies) or name
        if name not in bundle.vocabularies:
            if "," in name or bundle.has_text_encoder or self._encoder or not bundle.vocabularies:
                check_list_name(name, {*bundle.vocabularies, *class_lists()})
                return None
            raise VocabularyError(
                f"{bundle.name} has no text encoder and no vocabulary {name[:60]!r}."
                f"{did_you_mean(name, bundle.vocabularies)} "
                f"Its vocabularies: {', '.join(bundle.vocabularies)}"
            )
        vocabulary = Vocabulary.load(bundle.file(bundle.vocabularies[name]))
        stored, current = (vocabulary.text_hash, vocabulary.templates), (bundle.text_hash, bundle.templates)
        if bundle.has_text_encoder and stored != current and name in class_lists():
            _log.info("%s: another text encoder made its %s; embedding it again", bundle.name, name)
            return None
        return self._checked(vocabulary)

    @functools.cached_property
    def _text_hash(self) -> str:
        """Hash of the text encoder behind the bundle's vocabularies; empty when unknown."""
        bundle = self._bundle
        if bundle is None or bundle.has_text_encoder:
            return bundle.text_hash if bundle else ""
        files = map(bundle.file, bundle.vocabularies.values())
        return next((Vocabulary.load(file).text_hash for file in files), "")

    def _checked(self, vocabulary: Vocabulary) -> Vocabulary:
        """Return the vocabulary if it belongs to this model."""
        width = vocabulary.embeddings.shape[1]
        if width != self._width:
            problem = f"the vocabulary's embeddings are {width} wide, this model's {self._width}"
        elif vocabulary.text_hash and self._text_hash not in ("", vocabulary.text_hash):
            problem = "the vocabulary was made with another text encoder than this model's"
        else:
            return vocabulary
        raise VocabularyError(f"{problem}. Build it with this model: pixelclip vocab build --model …")
