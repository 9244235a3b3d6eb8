"""Vocabulary: class names with their embeddings."""

import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.words.classes import (
    CLASS_FILES,
    Classes,
    check_list_name,
    class_list,
    class_lists,
    parse_classes,
    read_class_file,
)

__all__ = ["Classes", "Encoder", "Vocabulary", "parse_classes", "read_classes"]

_SCHEMA_VERSION = 1


class Encoder(Protocol):
    """What turns texts into embeddings: `pixelclip_sdk.words.text_encoder.TextEncoder`, or one of yours."""

    templates: tuple[str, ...]
    text_hash: str

    def check_words(self, words: Sequence[str]) -> None:
        """Raise VocabularyError for a word that cannot be embedded."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Texts → `(N, D)` float32 unit rows."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    """Class names and their embeddings. Immutable: changing words means making another.

    Attributes:
        names: K class names, in label order.
        embeddings: `(K, D)` float32, unit rows, read-only.
        synonyms: Name → the texts its embedding is the mean of.
        templates: Prompts the texts were put into.
        text_hash: SHA-256 of the text encoder that made the embeddings; empty when unknown.
    """

    names: list[str]
    embeddings: npt.NDArray[np.float32]
    synonyms: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    templates: tuple[str, ...] = ()
    text_hash: str = ""

    def __post_init__(self) -> None:
        names = list(parse_classes(self.names))
        embeddings = np.array(self.embeddings)
        if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != len(names):
            raise VocabularyError(
                f"embeddings are {embeddings.dtype} {embeddings.shape}; expected float32 ({len(names)}, D)"
            )
        norms = np.linalg.norm(embeddings, axis=1)
        if not np.allclose(norms, 1, atol=1e-3):  # NaN fails this too.
            row = int(np.argmax(~(np.abs(norms - 1) <= 1e-3)))
            raise VocabularyError(f"the embedding of {names[row]!r} has norm {norms[row]:.4g}; expected 1")
        embeddings.setflags(write=False)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "embeddings", embeddings)
        object.__setattr__(self, "synonyms", {n: tuple(self.synonyms.get(n, (n,))) for n in names})

    @classmethod
    def encode(cls, classes: Classes, encoder: Encoder) -> "Vocabulary":
        """Embed words.

        A class's embedding is, for each of the encoder's templates, the mean over its synonyms, normalised;
        then the mean of these over the templates, normalised (PixelCLIP's prompt ensemble, in the order of
        the official code). Underscores in a word are read as spaces.

        Args:
            classes: The words; see `Classes`.
            encoder: The text encoder.

        Raises:
            VocabularyError: There are no names, too many, one is empty, repeated, too long or unknown to
                the encoder.
        """
        synonyms = parse_classes(classes)
        words = [word.replace("_", " ") for texts in synonyms.values() for word in texts]
        encoder.check_words(words)
        templates = encoder.templates or ("{}",)
        prompts = [template.replace("{}", word) for word in words for template in templates]
        rows = encoder.encode(prompts)
        counts = [len(texts) for texts in synonyms.values()]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        means = np.add.reduceat(rows.reshape(len(words), -1, rows.shape[1]), starts, axis=0)
        means /= np.linalg.norm(means, axis=2, keepdims=True)
        if means.shape[1] > 1:  # Several templates.
            means = means.sum(axis=1, keepdims=True)
            means /= np.linalg.norm(means, axis=2, keepdims=True)
        return cls(
            names=list(synonyms),
            embeddings=means[:, 0],
            synonyms=synonyms,
            templates=encoder.templates,
            text_hash=encoder.text_hash,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.npz`` that `load` reads, without pickles.

        Raises:
            VocabularyError: The path does not end in ``.npz``.
            OutputError: The file cannot be written.
        """
        target = Path(path)
        if target.suffix != ".npz":
            raise VocabularyError(
                f"cannot save a vocabulary as {target.name!r}; expected a name ending in .npz"
            )
        meta = {
            "schema_version": _SCHEMA_VERSION,
            "names": self.names,
            "synonyms": {name: list(texts) for name, texts in self.synonyms.items()},
            "templates": list(self.templates),
            "text_hash": self.text_hash,
        }
        # JSON in a byte array: numpy's own string arrays lose trailing NULs and waste four bytes a letter.
        blob = np.frombuffer(json.dumps(meta, ensure_ascii=False).encode(), np.uint8)
        with atomic_write(target) as temporary:
            np.savez(temporary, embeddings=self.embeddings, meta=blob)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read what `save` wrote.

        Raises:
            VocabularyError: The file is missing, damaged, newer than this library, or not a vocabulary.
        """
        try:
            # Opened here because numpy leaves the file open when it is no archive.
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                meta = json.loads(file["meta"].tobytes().decode())
                embeddings = file["embeddings"]
            version = meta["schema_version"]
            if version > _SCHEMA_VERSION:
                raise VocabularyError(
                    f"{path} has schema version {version}; this pixelclip_sdk reads up to {_SCHEMA_VERSION}. "
                    "Upgrade pixelclip-sdk."
                )
            return cls(
                names=meta["names"],
                embeddings=embeddings,
                synonyms={name: tuple(texts) for name, texts in meta["synonyms"].items()},
                templates=tuple(meta["templates"]),
                text_hash=meta["text_hash"],
            )
        except VocabularyError:
            raise
        except FileNotFoundError as error:
            raise VocabularyError(
                f"{path} does not exist; expected a vocabulary made by `pixelclip vocab build`"
            ) from error
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            raise VocabularyError(
                f"{path} is not a vocabulary, or is damaged: {error}. Build it again."
            ) from error

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        shown = ", ".join(self.names[:6]) + (", …" if len(self.names) > 6 else "")
        return f"Vocabulary({len(self.names)} names: {shown})"


def read_classes(text_or_path: str) -> Classes | Vocabulary:
    """Read classes as a person gives them on a command line.

    Args:
        text_or_path: ``"cat, sofa"``; the name of a list that comes with the SDK, ``"voc-20"``; or a file:
            ``.txt`` with a class a line (``cat, kitten``: the first text is the name, all are synonyms;
            ``#`` starts a comment), ``.json`` with a list or an object name → synonyms, or a ``.npz``
            vocabulary.

    Raises:
        VocabularyError: The file cannot be read, or the text is nearly the name of a list.
    """
    path = Path(text_or_path)
    if path.suffix.lower() == ".npz":
        return Vocabulary.load(path)
    if path.suffix.lower() in CLASS_FILES:
        return read_class_file(path)
    if text_or_path.strip() in class_lists():
        return class_list(text_or_path.strip())
    check_list_name(text_or_path, class_lists())
    return text_or_path
