"""VocabularyResolver: words as people give them to a vocabulary that fits the model."""

import functools
import hashlib
import json
import logging
import threading
from pathlib import Path

from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.errors import BackendError, OutputError, VocabularyError
from pixelclip_sdk.support.files import cache_folder, is_file
from pixelclip_sdk.support.hints import did_you_mean, find_name
from pixelclip_sdk.words.classes import NOUNS, check_list_name, class_list, class_lists
from pixelclip_sdk.words.vocabulary import Classes, Encoder, Vocabulary

_log = logging.getLogger(__name__)


class VocabularyResolver:
    """Makes vocabularies for one model. Thread-safe; the text encoder is loaded with the first words.

    The arguments are those of `pixelclip_sdk.Segmenter`, and the width D of the model's embeddings.
    """

    def __init__(
        self,
        bundle: Bundle | None,
        encoder: Encoder | None,
        width: int,
        threads: int | None,
        deadline_s: float | None,
    ) -> None:
        self._bundle, self._encoder = bundle, encoder
        self._width, self._threads, self._deadline_s = width, threads, deadline_s
        self._lock = threading.Lock()
        self._nouns_lock = threading.Lock()
        self._nouns: Vocabulary | None = None
        self._closed = False

    def resolve(self, classes: Classes | Vocabulary) -> Vocabulary:
        """Return the vocabulary of words or of a list's name; see `pixelclip_sdk.Segmenter.set_classes`.

        A `Vocabulary` is checked and returned.
        """
        self._check_open()
        if isinstance(classes, Vocabulary):
            return self._checked(classes)
        if isinstance(classes, str):
            if precomputed := self._precomputed(classes.strip()):
                return precomputed
            if find_name(classes.strip(), [NOUNS]):
                with self._nouns_lock:
                    self._nouns = self._nouns or self._stored_nouns()
                    return self._nouns
        return self._embedded(classes)

    def _embedded(self, classes: Classes) -> Vocabulary:
        vocabulary = self._checked(Vocabulary.encode(classes, self._loaded_encoder()))
        for word in self.unfamiliar(vocabulary):
            _log.warning("the text encoder may not know %r; check the spelling, and use English words", word)
        return vocabulary

    def unfamiliar(self, vocabulary: Vocabulary) -> list[str]:
        """Return the names that are probably misspelt or not English; see `pixelclip_sdk.Segmenter`."""
        # Encoders of users need not have this method. Words that no encoder was loaded for are known.
        return list(getattr(self._encoder, "unfamiliar_words", lambda _: [])(vocabulary.names))

    def _stored_nouns(self) -> Vocabulary:
        """Return the vocabulary of `NOUNS` from the user's cache folder, or embed it, which takes seconds.

        The file's name has a hash of the text encoder, the templates and the words.
        """
        source, folder = self._encoder or self._bundle, cache_folder()
        if source is None or not source.text_hash or folder is None:
            return self._embedded(NOUNS)
        words = class_list(NOUNS)
        key = json.dumps([source.text_hash, source.templates, words]).encode()
        file = folder / "vocabularies" / f"{NOUNS}-{hashlib.sha256(key).hexdigest()[:16]}.npz"
        if stored := _loaded(file, source.text_hash, tuple(words)):
            return stored
        _log.warning("embedding the %d words of %s, once for this text encoder", len(words), NOUNS)
        vocabulary = self._embedded(NOUNS)
        try:
            vocabulary.save(file)
        except OutputError as error:
            _log.warning("these embeddings are not kept for the next time: %s", error)
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

                self._encoder = TextEncoder(self._bundle, threads=self._threads, deadline_s=self._deadline_s)
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
        elif vocabulary.image_hash and self._bundle and self._bundle.image_hash != vocabulary.image_hash:
            problem = "the vocabulary has classes from pictures that another model saw"
        else:
            return vocabulary
        raise VocabularyError(f"{problem}. Build it with this model: pixelclip vocab build --model …")


def _loaded(file: Path, text_hash: str, names: tuple[str, ...]) -> Vocabulary | None:
    """Return the vocabulary in a file, or None if there is none or it has other words."""
    if not is_file(file):
        return None
    try:
        vocabulary = Vocabulary.load(file)
    except VocabularyError as error:
        _log.warning("%s", error)
        return None
    return vocabulary if (vocabulary.text_hash, vocabulary.names) == (text_hash, names) else None
