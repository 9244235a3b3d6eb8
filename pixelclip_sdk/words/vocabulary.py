"""Vocabulary: class names with their embeddings."""

import dataclasses
import functools
import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.support.files import atomic_write, is_file, is_folder, user_path
from pixelclip_sdk.support.hints import find_name, folded
from pixelclip_sdk.words.classes import (
    CLASS_FILES,
    MAX_CLASSES,
    Classes,
    check_list_name,
    check_no_path,
    class_list,
    class_lists,
    parse_classes,
    read_class_file,
)
from pixelclip_sdk.words.formats import shown

if TYPE_CHECKING:
    from pixelclip_sdk.segmenter import Segmenter
    from pixelclip_sdk.words.image_prompts import Examples

__all__ = ["Classes", "Encoder", "Vocabulary", "parse_classes", "read_classes"]

_SCHEMA_VERSION = 2  # 1 has no image_hash.
_MAX_WIDTH = 4096
_MAX_META_BYTES = 16 << 20


class Encoder(Protocol):
    """A text encoder: `pixelclip_sdk.words.text_encoder.TextEncoder`, or your own."""

    templates: tuple[str, ...]
    """Prompts that a word is put into, each with one ``{}``."""
    text_hash: str
    """SHA-256 that identifies the encoder; empty when unknown."""

    def check_words(self, words: Sequence[str]) -> None:
        """Raise VocabularyError if a word cannot be embedded."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embed N texts: `(N, D)` float32, unit rows."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Vocabulary:
    """Class names and their embeddings. Immutable: to change words, make another vocabulary.

    Attributes:
        names: K class names, in label order.
        embeddings: `(K, D)` float32, unit rows, read-only.
        synonyms: Name → the texts whose mean is its embedding, none for a class made from pictures;
            read-only.
        templates: Prompts that the texts were put into.
        text_hash: SHA-256 of the text encoder that made the embeddings; empty when unknown.
        unused: Labels that no pixel gets: their words were removed while the other words kept their labels
            (`keeping_labels`). Ascending.
        image_hash: SHA-256 of the image encoder that made classes from pictures; empty without such classes.

    ``words + others`` joins two vocabularies.

    Raises:
        VocabularyError: A name cannot be used, or the embeddings are not K unit rows of float32.

    Examples:
        >>> from pixelclip_sdk import Segmenter
        >>> with Segmenter.from_pretrained("pixelclip-lite", classes=["cat", "sofa"]) as segmenter:
        ...     vocabulary = segmenter.vocabulary
        >>> vocabulary.names, vocabulary.embeddings.shape
        (('cat', 'sofa'), (2, 384))
    """

    names: tuple[str, ...]
    embeddings: npt.NDArray[np.float32]
    synonyms: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    templates: tuple[str, ...] = ()
    text_hash: str = ""
    unused: tuple[int, ...] = ()
    image_hash: str = ""

    def __post_init__(self) -> None:
        names = tuple(parse_classes(self.names))
        embeddings = np.array(self.embeddings)
        if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != len(names):
            raise VocabularyError(
                f"embeddings are {embeddings.dtype} {embeddings.shape}; expected float32 ({len(names)}, D)"
            )
        norms = np.linalg.norm(embeddings, axis=1)
        if not np.allclose(norms, 1, atol=1e-3):  # Also False for NaN.
            row = int(np.argmax(~(np.abs(norms - 1) <= 1e-3)))
            raise VocabularyError(f"the embedding of {names[row]!r} has norm {norms[row]:.4g}; expected 1")
        embeddings.setflags(write=False)
        synonyms = {name: tuple(self.synonyms.get(name, (name,))) for name in names}
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "embeddings", embeddings)
        object.__setattr__(self, "synonyms", MappingProxyType(synonyms))
        object.__setattr__(self, "templates", tuple(self.templates))
        unused = tuple(sorted(set(self.unused)))
        if any(label not in range(len(names)) for label in unused) or len(unused) == len(names):
            raise VocabularyError(
                f"unused is {unused}; expected some, not all, of the labels 0 to {len(names) - 1}"
            )
        object.__setattr__(self, "unused", unused)

    def __reduce__(self) -> tuple[Callable[[], "Vocabulary"], tuple[()]]:
        fields: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return functools.partial(type(self), **fields | {"synonyms": dict(self.synonyms)}), ()

    @classmethod
    def encode(cls, classes: Classes, encoder: Encoder) -> "Vocabulary":
        """Embed words. Underscores in a word are read as spaces.

        The embedding of a class is, for each of the encoder's templates, the mean over its synonyms,
        normalised; then the mean of these over the templates, normalised (PixelCLIP's prompt ensemble, in the
        order of the official code).

        Raises:
            VocabularyError: The words cannot be used (see `parse_classes`), the encoder does not know one, or
                the encoder returned something else than one row per text.
        """
        synonyms = parse_classes(classes)
        words = [word.replace("_", " ") for texts in synonyms.values() for word in texts]
        encoder.check_words(words)
        templates = encoder.templates or ("{}",)
        prompts = [template.replace("{}", word) for word in words for template in templates]
        rows = encoder.encode(prompts)
        if rows.ndim != 2 or rows.dtype != np.float32 or len(rows) != len(prompts):
            raise VocabularyError(
                f"the text encoder returned {rows.dtype} {rows.shape} for {len(prompts)} texts; "
                f"expected float32 ({len(prompts)}, D)"
            )
        starts = np.cumsum([0, *map(len, synonyms.values())])[:-1]
        means = np.add.reduceat(rows.reshape(len(words), -1, rows.shape[1]), starts, axis=0)
        means /= np.linalg.norm(means, axis=2, keepdims=True)
        if means.shape[1] > 1:  # Several templates.
            means = means.sum(axis=1, keepdims=True)
            means /= np.linalg.norm(means, axis=2, keepdims=True)
        return cls(
            names=tuple(synonyms),
            embeddings=means[:, 0],
            synonyms=synonyms,
            templates=encoder.templates,
            text_hash=encoder.text_hash,
        )

    def keeping_labels(self, before: "Vocabulary") -> "Vocabulary":
        """These words, with the labels that they had in an earlier vocabulary.

        Words of both keep their label. New words take the labels of removed words, lowest first, and then new
        labels at the end. A removed word whose label nobody takes keeps its name and becomes `unused`: no
        pixel gets it.

        Args:
            before: A vocabulary of the same model.

        Raises:
            VocabularyError: The embeddings of the two have another width.

        Examples:
            >>> from pixelclip_sdk import Segmenter
            >>> with Segmenter.from_pretrained("pixelclip-lite", classes="cat, sofa, rug") as segmenter:
            ...     words = segmenter.set_classes("dog, rug", keep_ids=True)
            >>> words.names, words.unused
            (('dog', 'sofa', 'rug'), (1,))
        """
        if before.embeddings.shape[1] != self.embeddings.shape[1]:
            raise VocabularyError(
                f"embeddings are {self.embeddings.shape[1]} wide, those before {before.embeddings.shape[1]}; "
                "expected vocabularies of one model"
            )
        own = {folded(name): row for row, name in enumerate(self.names) if row not in self.unused}
        # Old label → row of its word here, if any.
        labels = [own.pop(folded(name), None) for name in before.names]
        free = (label for label, row in enumerate(labels) if row is None)
        for row in own.values():
            label = next(free, len(labels))
            labels[label : label + 1] = [row]
        sources = [(before, label) if row is None else (self, row) for label, row in enumerate(labels)]
        names = [vocabulary.names[row] for vocabulary, row in sources]
        return dataclasses.replace(
            self,
            names=tuple(names),
            embeddings=np.stack([vocabulary.embeddings[row] for vocabulary, row in sources]),
            synonyms={name: v.synonyms[v.names[row]] for name, (v, row) in zip(names, sources, strict=True)},
            unused=tuple(label for label, row in enumerate(labels) if row is None),
            image_hash=self.image_hash or before.image_hash,
        )

    @classmethod
    def from_images(cls, examples: "Examples", segmenter: "Segmenter") -> "Vocabulary":
        """Make classes from example pictures instead of words.

        The embedding of a class is the mean feature inside its masks, scaled so that words can be joined to
        it (see `pixelclip_sdk.words.image_prompts`). A crop should show little else than the thing.

        Args:
            examples: Name → a list of pictures of the thing alone, or of pairs (photo, mask). A mask is
                `(H, W)` at the size of the photo, an array or a PIL image of one channel; zero is outside.
            segmenter: The model that will use the vocabulary.

        Returns:
            A vocabulary for `Segmenter.set_classes`. With ``words + vocabulary`` it is joined to words.

        Raises:
            VocabularyError: A name or a list of examples cannot be used.
            ImageError: A picture or a mask cannot be used.
            BundleError: The model has no text encoder, which is needed to balance pictures and words.

        Examples:
            >>> import numpy as np
            >>> from pixelclip_sdk import Segmenter, Vocabulary
            >>> photo = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
            >>> mask = np.zeros((96, 128), bool)
            >>> mask[32:64, 32:96] = True
            >>> with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
            ...     words = segmenter.set_classes(["table", "wall"])
            ...     mug = Vocabulary.from_images({"my mug": [(photo, mask)]}, segmenter)
            ...     segmenter.set_classes(words + mug)
            Vocabulary(3 names: table, wall, my mug)
        """
        # Imported here because it reads pictures, which most programs that use words do not.
        from pixelclip_sdk.words.image_prompts import embed_examples

        words = segmenter.embed("common-150")
        names, rows = embed_examples(examples, segmenter, words.embeddings)
        return cls(
            names=names,
            embeddings=rows,
            synonyms=dict.fromkeys(names, ()),
            templates=words.templates,
            text_hash=words.text_hash,
            image_hash=segmenter.bundle.image_hash if segmenter.bundle else "",
        )

    def __add__(self, other: "Vocabulary") -> "Vocabulary":
        """Join two vocabularies of one model: the names of this one, then those of the other.

        Raises:
            VocabularyError: They were made with different models or templates, or share a name.
        """
        if not isinstance(other, Vocabulary):
            return NotImplemented
        shared: dict[str, Any] = {}
        for field in ("text_hash", "image_hash", "templates"):
            mine, its = getattr(self, field), getattr(other, field)
            if mine and its and mine != its:
                raise VocabularyError(
                    f"the vocabularies have different {field} ({mine!r:.40} and {its!r:.40}); "
                    "expected two of one model. Build both with it."
                )
            shared[field] = mine or its
        widths = self.embeddings.shape[1], other.embeddings.shape[1]
        if widths[0] != widths[1]:
            raise VocabularyError(
                f"the vocabularies are {widths[0]} and {widths[1]} wide; expected two of one model"
            )
        return Vocabulary(
            names=self.names + other.names,
            embeddings=np.concatenate([self.embeddings, other.embeddings]),
            synonyms={**self.synonyms, **other.synonyms},
            unused=(*self.unused, *(len(self) + label for label in other.unused)),
            **shared,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a ``.npz`` file that `load` reads, without pickles.

        Raises:
            VocabularyError: The path does not end in ``.npz``.
            OutputError: The file cannot be written.
        """
        target = user_path(path)
        if target.suffix != ".npz":
            raise VocabularyError(f"cannot save a vocabulary as {target.name!r}; expected NAME.npz")
        meta = {
            "schema_version": _SCHEMA_VERSION if self.image_hash else 1,
            "names": self.names,
            "synonyms": dict(self.synonyms),
            "templates": self.templates,
            "text_hash": self.text_hash,
            **({"unused": self.unused} if self.unused else {}),
        }
        if self.image_hash:
            meta["image_hash"] = self.image_hash
        # JSON in a byte array: numpy's own string arrays lose trailing NULs and use four bytes per letter.
        blob = np.frombuffer(json.dumps(meta, ensure_ascii=False).encode(), np.uint8)
        with atomic_write(target) as temporary:
            np.savez(temporary, embeddings=self.embeddings, meta=blob)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Vocabulary":
        """Read a file that `save` wrote; raise VocabularyError if it is missing, damaged or newer."""
        try:
            with zipfile.ZipFile(user_path(path)) as archive:
                meta = json.loads(_array(archive, "meta", "|u1", 1, _MAX_META_BYTES).tobytes())
                embeddings = _array(archive, "embeddings", "<f4", 2, MAX_CLASSES * _MAX_WIDTH * 4)
            if (version := meta.pop("schema_version")) > _SCHEMA_VERSION:
                raise VocabularyError(
                    f"{path} has schema version {version}; this pixelclip_sdk reads up to {_SCHEMA_VERSION}. "
                    "Upgrade pixelclip-sdk."
                )
            return cls(embeddings=embeddings, **meta)
        except VocabularyError:
            raise
        except FileNotFoundError as error:
            raise VocabularyError(f"{path} does not exist; run `pixelclip vocab build`") from error
        except Exception as error:  # The readers of zip, JSON and arrays raise many kinds for damaged files.
            problem = f"{path} is not a vocabulary, or is damaged: {error}"
            raise VocabularyError(f"{problem}. Build it again.") from error

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        names = [name for label, name in enumerate(self.names) if label not in self.unused]
        few = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
        return f"Vocabulary({len(names)} names: {few})"


def _array(archive: zipfile.ZipFile, name: str, dtype: str, rank: int, limit: int) -> npt.NDArray[Any]:
    """Read an array of a ``.npz`` file; its header and size in bytes are checked before it is loaded."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.file_size > limit + 10_000:
        raise ValueError(f"{name} has {entry.file_size} bytes; expected at most {limit}")
    with archive.open(entry) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError(f"{name} has an unknown header")
        shape, by_columns, found = np.lib.format.read_array_header_1_0(stream)
        if found != np.dtype(dtype) or len(shape) != rank or by_columns:
            raise ValueError(f"{name} is {found} {shape}; expected {np.dtype(dtype)}, {rank} dimension(s)")
        return np.frombuffer(stream.read(), dtype).reshape(shape)


def read_classes(text_or_path: str | os.PathLike[str]) -> Classes | Vocabulary:
    """Read classes as a person types them on a command line.

    Args:
        text_or_path: One of:

            * ``"cat, sofa"``, and the other conventions of `pixelclip_sdk.words.formats`.
            * The name of a list that ships with the SDK, ``"voc-20"``; it wins over a file of that name.
            * A file, with any suffix: a class per line (``cat, kitten``: the first text is the name, all are
              synonyms; ``#`` starts a comment), one line as you would type it, JSON (a list, or an object
              name → synonyms), a simple YAML list such as the ``names:`` of data.yaml, or a ``.npz``
              vocabulary.

    Raises:
        VocabularyError: The file cannot be read, or the text is nearly the name of a list or looks like a
            path.

    Examples:
        >>> from pixelclip_sdk import read_classes
        >>> list(read_classes("voc-20"))[:2]
        ['aeroplane', 'bicycle']
    """
    if isinstance(text_or_path, os.PathLike):
        return _read_file(user_path(text_or_path))
    if not isinstance(text_or_path, str):
        raise VocabularyError(f"got {type(text_or_path).__name__}; expected names in one text, or a path")
    word, path = text_or_path.strip(), user_path(text_or_path)
    if find_name(word, class_lists()):
        return class_list(word)
    exists = is_file(path)
    if word and not path.suffix and path.name == word and (exists or is_folder(path)):
        use = f"To read the file write ./{word}" if exists else "Expected a file"
        raise VocabularyError(
            f"{shown(word)} is a {'file' if exists else 'folder'} here, and may be a class. {use}; "
            f"for the class write '[\"{word}\"]'"
        )
    if exists or (path.suffix.lower() in CLASS_FILES and not re.search(r"[,;|\t\n]", word)):
        return _read_file(path)
    check_no_path(word)
    check_list_name(word, class_lists())
    return text_or_path


def _read_file(path: Path) -> Classes | Vocabulary:
    return Vocabulary.load(path) if path.suffix.lower() == ".npz" else read_class_file(path)
