"""Words → unit embeddings, without torch: a `tokenizers` tokenizer and an ONNX text encoder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.onnx import create_session
from pixelclip_sdk.bundle import TEXT_ENCODER, TOKENIZER, Bundle
from pixelclip_sdk.errors import BackendError, BackendUnavailableError, BundleError, VocabularyError

__all__ = ["TextEncoder"]

_BATCH = 64


class TextEncoder:
    """A bundle's text encoder. Safe to call from several threads at once.

    Args:
        bundle: A bundle with `text_encoder.onnx` and `tokenizer.json`.
        threads: CPU threads; None for all that this process may use.

    Raises:
        BundleError: The bundle has no text encoder, or its files are damaged.
        BackendError: ONNX Runtime refuses the graph.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        if not bundle.has_text_encoder:
            raise BundleError(
                f"bundle {bundle.name!r} has no text encoder: it knows only precomputed vocabularies "
                f"({', '.join(sorted(bundle.vocabularies)) or 'none inside'}). Use one of them, "
                "or a Vocabulary loaded from a .npz file, or export the bundle with its text encoder."
            )
        self.templates = bundle.templates
        self.text_hash = bundle.text_hash
        self.tokenizer = _load_tokenizer(bundle.file(TOKENIZER))
        self._unknown = self.tokenizer.token_to_id("[UNK]")
        self._session = create_session(bundle.file(TEXT_ENCODER), threads=threads)
        # CLIP's graph takes the ids alone: it ends a text by a token of its own.
        self._inputs = [value.name for value in self._session.get_inputs()]
        if self._inputs not in (["input_ids"], ["input_ids", "attention_mask"]):
            raise BundleError(
                f"{TEXT_ENCODER} of bundle {bundle.name!r} takes {', '.join(self._inputs)}; "
                "expected input_ids, and attention_mask if it needs one. Export the bundle again."
            )

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words of which the tokenizer knows no part: their embedding would mean nothing.

        Raises:
            VocabularyError: Names the first such word.
        """
        for word, encoding in zip(
            words, self.tokenizer.encode_batch(words, add_special_tokens=False), strict=True
        ):
            ids = [i for i, real in zip(encoding.ids, encoding.attention_mask, strict=True) if real]
            # A byte-level tokenizer has no unknown token, but it may find nothing (a control character).
            if all(i == self._unknown for i in ids):
                raise VocabularyError(
                    f"the text encoder knows no part of the name {word!r}; expected English words. "
                    "Write it in English, e.g. 'cat' for a cat emoji."
                )

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed texts as they are, without templates.

        Args:
            texts: At least one text.

        Returns:
            `(len(texts), D)` float32, unit rows.

        Raises:
            VocabularyError: A text has more tokens than the encoder takes.
            BackendError: The engine failed.
        """
        encodings = self.tokenizer.encode_batch(texts)
        for text, encoding in zip(texts, encodings, strict=True):
            if encoding.overflowing:
                raise VocabularyError(
                    f"the text {text[:40]!r}… has more tokens than the text encoder takes. Shorten it."
                )
        # Texts of like length share a batch, so that little of it is padding.
        lengths = [sum(encoding.attention_mask) for encoding in encodings]
        order = sorted(range(len(texts)), key=lengths.__getitem__)
        rows: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            longest = max(lengths[i] for i in batch)
            rows.append(
                self._run(
                    np.array([encodings[i].ids[:longest] for i in batch], np.int64),
                    np.array([encodings[i].attention_mask[:longest] for i in batch], np.int64),
                )
            )
        embeddings = np.concatenate(rows)
        result = np.empty_like(embeddings)
        result[order] = embeddings
        return result

    def _run(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        try:
            feed = {"input_ids": ids, "attention_mask": mask}
            result: npt.NDArray[np.float32] = self._session.run(
                ["embedding"], {name: feed[name] for name in self._inputs}
            )[0]
        except Exception as error:  # ONNX Runtime's errors have no common base class.
            raise BackendError(f"the text encoder failed on {len(ids)} texts: {error}") from error
        return result


def _load_tokenizer(path: Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise BackendUnavailableError(
            "tokenizers is not installed. Install it: pip install tokenizers"
        ) from error
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # The Rust side raises bare Exception.
        raise BundleError(
            f"{path} is not a tokenizer that tokenizers {tokenizers.__version__} reads: {error}"
        ) from error
    tokenizer.enable_padding(direction="right", pad_id=0)
    return tokenizer
