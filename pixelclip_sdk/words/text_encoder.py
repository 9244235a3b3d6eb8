"""TextEncoder: words to unit embeddings without torch, by a `tokenizers` tokenizer and an ONNX graph."""

import contextlib
import functools
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.fork import check_process
from pixelclip_sdk.backends.onnx import create_session, ended_after
from pixelclip_sdk.bundle import TEXT_ENCODER, TOKENIZER, Bundle
from pixelclip_sdk.errors import BackendError, BackendUnavailableError, BundleError, VocabularyError
from pixelclip_sdk.words.classes import class_list, class_lists

_log = logging.getLogger(__name__)

_BATCH = 64
_SLOW_S = 2.0  # Shorter work needs no message.
_KEPT = 4096  # Texts whose embeddings are kept.


class TextEncoder:
    """The text encoder of a bundle. Safe to call from several threads at once.

    It keeps the embeddings of the last few thousand texts: people change one word of a list at a time. A run
    that takes longer than `deadline_s` seconds is ended with a BackendError; None waits for ever.

    Raises BundleError if the bundle has no text encoder or its files are damaged.
    """

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, deadline_s: float | None = None
    ) -> None:
        if not bundle.has_text_encoder:
            raise BundleError(
                f"bundle {bundle.name!r} has no text encoder. Use one of its vocabularies "
                f"({', '.join(bundle.vocabularies) or 'none'}), or export it with its text encoder."
            )
        self.templates = bundle.templates
        self.text_hash = bundle.text_hash
        self._width = bundle.embedding_dim
        self._deadline_s = deadline_s
        self._process = os.getpid()
        self._kept: OrderedDict[str, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()
        path = bundle.file(TOKENIZER)
        self.tokenizer = _load_tokenizer(path)
        self._unknown = self.tokenizer.token_to_id("[UNK]")
        self._tokenize(["a"])  # A damaged tokenizer may fail only here.
        self._session = create_session(bundle.file(TEXT_ENCODER), threads=threads)
        # CLIP's graph takes only the ids: it finds the end of a text by the end token.
        self._inputs = [value.name for value in self._session.get_inputs()]
        if self._inputs not in (["input_ids"], ["input_ids", "attention_mask"]):
            raise BundleError(
                f"{TEXT_ENCODER} of bundle {bundle.name!r} takes {', '.join(self._inputs)}; "
                "expected input_ids, and attention_mask if it needs one. Export the bundle again."
            )

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words without any known token: their embeddings would be meaningless."""
        for word, encoding in zip(words, self._tokenize(words, add_special_tokens=False), strict=True):
            # A byte-level tokenizer has no unknown token, but may find no token (a control character).
            if all(i == self._unknown for i in encoding.ids):
                raise VocabularyError(
                    f"the text encoder knows no part of the name {word!r}; expected English words. "
                    "Write it in English, e.g. 'cat' for a cat emoji."
                )

    def unfamiliar_words(self, words: Sequence[str]) -> list[str]:
        """Return the words that are probably misspelt or not English. A cheap guess, for hints.

        A word is unfamiliar if no class list of the SDK contains it, and the tokenizer splits it into four or
        more pieces or leaves a single letter.
        """
        parts = [(word, part) for word in words for part in _split(word) if part.isalpha()]
        if not parts:
            return []
        unfamiliar = {}
        encodings = self._tokenize([part for _, part in parts], add_special_tokens=False)
        for (word, part), encoding in zip(parts, encodings, strict=True):
            lengths = [stop - start for start, stop in encoding.offsets]
            if len(lengths) >= 4 or (len(lengths) > 1 and 1 in lengths):
                unfamiliar[word] = part.casefold()
        return [word for word, part in unfamiliar.items() if part not in _listed_words()]

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed at least one text, without templates: `(len(texts), D)` float32, unit rows.

        Raises VocabularyError if a text has more tokens than the encoder takes, and BundleError or
        BackendError if the model fails.
        """
        check_process(self._process)
        with self._lock:
            known = {text: self._kept[text] for text in texts if text in self._kept}
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known |= {text: row.copy() for text, row in zip(new, self._encoded(new), strict=True)}
        with self._lock:
            for text, row in known.items():
                self._kept[text] = row
                self._kept.move_to_end(text)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return np.stack([known[text] for text in texts])

    def _encoded(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        encodings = self._tokenize(texts)
        for text, encoding in zip(texts, encodings, strict=True):
            if encoding.overflowing:
                raise VocabularyError(
                    f"the text {text[:40]!r}… has more tokens than the text encoder takes. Shorten it."
                )
        # Texts of similar length share a batch, so that little of it is padding.
        lengths = [len(encoding.ids) for encoding in encodings]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        rows: list[npt.NDArray[np.float32]] = []
        begin = time.perf_counter()
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            longest = max(lengths[i] for i in batch)
            ids = np.zeros((len(batch), longest), np.int64)
            mask = np.zeros_like(ids)
            for row, i in enumerate(batch):
                ids[row, : lengths[i]] = encodings[i].ids
                mask[row, : lengths[i]] = 1
            rows.append(self._run(ids, mask))
            if start == 0 and len(texts) > _BATCH:
                total = sum(lengths) / (longest * len(batch)) * (time.perf_counter() - begin)
                message = "embedding %d texts takes about %.0f s; `pixelclip vocab build` saves the result"
                if total > _SLOW_S:
                    _log.warning(message, len(texts), total)
        embeddings = np.concatenate(rows)
        result = np.empty_like(embeddings)
        result[order] = embeddings
        return result

    def _tokenize(self, texts: Sequence[str], **options: Any) -> list[Any]:
        with _damaged_if_it_fails(f"{TOKENIZER} fails"):
            # `encode_batch` has threads of its own, which take longer for a few words on a busy machine.
            return [self.tokenizer.encode(text, **options) for text in texts]

    def _run(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        options: Any = None
        try:
            feed = {"input_ids": ids, "attention_mask": mask}
            with ended_after(self._deadline_s) as options:
                result: npt.NDArray[np.float32] = self._session.run(
                    ["embedding"], {name: feed[name] for name in self._inputs}, options
                )[0]
        except Exception as error:  # ONNX Runtime's errors have no common base class.
            if options is not None and options.terminate:
                raise BackendError(
                    f"the text encoder took longer than deadline_s={self._deadline_s:g} on {len(ids)} texts. "
                    "Allow more time, or embed the words before: pixelclip vocab build"
                ) from error
            raise BackendError(f"the text encoder failed on {len(ids)} texts: {error}") from error
        expected = (len(ids), self._width)
        if not isinstance(result, np.ndarray) or result.dtype != np.float32 or result.shape != expected:
            found = (
                f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
            )
            raise BundleError(
                f"{TEXT_ENCODER} returned {found} for {len(ids)} texts; "
                f"expected float32 ({len(ids)}, {self._width}). Export the bundle again."
            )
        with np.errstate(all="ignore"):
            norms = np.linalg.norm(result, axis=1)
        if not np.allclose(norms, 1, atol=0.01):  # Also False for NaN.
            raise BundleError(
                f"{TEXT_ENCODER} gave rows of lengths {norms.min():.3g} to {norms.max():.3g}; expected 1. "
                "Export the bundle again."
            )
        return result


@functools.cache
def _listed_words() -> frozenset[str]:
    """Every word of every class list of the SDK, in lower case."""
    texts = [text for name in class_lists() for texts in class_list(name).values() for text in texts]
    return frozenset(_split(" ".join(texts).casefold()))


def _split(text: str) -> list[str]:
    return text.replace("_", " ").replace("-", " ").split()


def _load_tokenizer(path: Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise BackendUnavailableError("tokenizers is not installed: pip install tokenizers") from error
    with _damaged_if_it_fails(f"{path} is not a tokenizer that tokenizers {tokenizers.__version__} reads"):
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    return tokenizer


@contextlib.contextmanager
def _damaged_if_it_fails(problem: str) -> Iterator[None]:
    """Raise BundleError for an error or a panic of `tokenizers`."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # A panic of the Rust library is not an Exception.
        raise BundleError(f"{problem}: {error}. Export the bundle again.") from error
