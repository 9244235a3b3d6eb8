"""What makes a row of a picture: the model, the words and the settings. Can be sent to other machines."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from pixelclip_sdk._version import __version__
from pixelclip_sdk.batch.inputs import Picture, read_picture
from pixelclip_sdk.errors import BackendUnavailableError, BundleError, ImageError
from pixelclip_sdk.results.pictures import label_picture, png
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.settings import plain_limits
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["STAGES", "Cells", "Done", "Job", "Shard", "ShardResult", "asks_for_gpu", "is_final"]

Cells: TypeAlias = dict[str, Any]
"""The cells of a row: column → value."""

STAGES = ("read", "decode", "preprocess", "inference", "refine", "postprocess", "encode")
"""Stages of a picture, whose milliseconds are in the timings."""


class Shard(NamedTuple):
    """A range of the archive that becomes one file.

    Attributes:
        number: Place of the shard in the archive, from 0.
        pictures: Its pictures.
        known: Hashes of contents whose rows an earlier run has written.
    """

    number: int
    pictures: Sequence[Picture]
    known: frozenset[str]


class Done(NamedTuple):
    """A picture that was looked at.

    Attributes:
        path: Its path, without the password of an address.
        content: SHA-256 of its bytes; empty if they cannot be read.
        cells: Its row; None if an earlier run has it.
        timings: Stage → milliseconds.
    """

    path: str
    content: str
    cells: Cells | None
    timings: Mapping[str, float]


class ShardResult(NamedTuple):
    """The pictures of a shard, in its order."""

    number: int
    done: Sequence[Done]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """How the pictures of an archive are segmented.

    Attributes:
        model: A model's name or a bundle's folder, as on all machines of the job.
        vocabulary: The words.
        background: Words that may win pixels, which become unknown; None for none.
        options: Further arguments of `Segmenter.from_pretrained`.
        model_name: The name in the model's manifest.
        model_hash: SHA-256 of its image encoder.
        facts: All that decides the rows, ready for JSON.
    """

    model: str
    vocabulary: Vocabulary
    background: Vocabulary | None
    options: Mapping[str, Any]
    model_name: str
    model_hash: str
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, segmenter: Segmenter, model: str, options: Mapping[str, Any], form: str) -> "Job":
        """The job of a loaded segmenter. `model` and `options` loaded it, `form` is the format."""
        bundle = segmenter.bundle
        if bundle is None:
            raise BundleError("the segmenter has no bundle; expected one of Segmenter.from_pretrained")
        facts = {
            "sdk": __version__,
            "model": bundle.name,
            "model_sha256": bundle.image_hash,
            "bundle_sha256": _hash({name: str(entry["sha256"]) for name, entry in bundle.files.items()}),
            "vocabulary_sha256": vocabulary_hash(segmenter.vocabulary),
            "names": list(segmenter.vocabulary.names),
            "background_sha256": vocabulary_hash(segmenter.background) if segmenter.background else None,
            "threshold": segmenter.threshold,
            "min_confidence": plain_limits(segmenter.min_confidence),
            "refine": segmenter.refine,
            "tiles": segmenter.tiles,
            "input_size": list(size) if (size := options.get("input_size")) else None,
            "backend": str(options.get("backend", "auto")),
            "format": form,
        }
        return cls(
            model=model,
            vocabulary=segmenter.vocabulary,
            background=segmenter.background,
            options=options,
            model_name=bundle.name,
            model_hash=bundle.image_hash,
            facts=facts,
        )

    @property
    def facts_hash(self) -> str:
        """SHA-256 of `facts`: rows with another one are not of this job."""
        return _hash(self.facts)

    def open(self) -> Segmenter:
        """Load the model. One thread runs a picture: several pictures are segmented at the same time.

        Raises BundleError if the model on this machine is another one.
        """
        options = {**self.options, "classes": self.vocabulary, "background": self.background, "threads": 1}
        segmenter = Segmenter.from_pretrained(self.model, **options)
        found = segmenter.bundle.image_hash if segmenter.bundle else ""
        if found != self.model_hash:
            segmenter.close()
            raise BundleError(
                f"{self.model} on this machine is another model than where the job began: the SHA-256 of its "
                f"image encoder is {found[:12]}…, expected {self.model_hash[:12]}…. Copy the bundle."
            )
        return segmenter

    def segment(self, segmenter: Segmenter, picture: Picture, known: frozenset[str]) -> Done:
        """Make the row of a picture. A picture that cannot be used becomes a row with its error.

        An engine that fails altogether, on a grey image too, raises its error.
        """
        path, content, start = _without_password(picture.path), "", time.perf_counter()
        try:
            data = read_picture(picture)
            content = hashlib.sha256(data).hexdigest()
            if content in known:
                return Done(path, content, None, {})
            read_ms = (time.perf_counter() - start) * 1e3
            result = segmenter.predict(data)
            start = time.perf_counter()
            labels = png(label_picture(result.labels))
            speed = {"read": read_ms, **result.speed, "encode": (time.perf_counter() - start) * 1e3}
            timings = {stage: speed[stage] for stage in STAGES}
        except BackendUnavailableError:  # A package is missing, for this picture and for others.
            raise
        except ImageError as error:
            return Done(path, content, self._cells(path, content, error=error), {})
        except Exception as error:  # One picture must not end the run, unless no picture works any more.
            segmenter.warm_up()
            return Done(path, content, self._cells(path, content, error=error), {})
        return Done(path, content, self._cells(path, content, result=result, labels=labels), timings)

    def _cells(
        self,
        path: str,
        content: str,
        *,
        result: Segmentation | None = None,
        labels: bytes | None = None,
        error: Exception | None = None,
    ) -> Cells:
        shares = result.areas() if result else {}
        height, width = result.orig_shape if result else (None, None)
        return {
            "path": path,
            "content_sha256": content or None,
            "height": height,
            "width": width,
            "names": list(self.vocabulary.names),
            "shares": [shares[name] for name in self.vocabulary.names] if result else None,
            "unknown_share": _unknown_share(result) if result else None,
            "label_png": labels,
            "error": None if error is None else f"{type(error).__name__}: {error}",
            "model": self.model_name,
            "model_sha256": self.model_hash,
            "vocabulary_sha256": self.facts["vocabulary_sha256"],
        }


def asks_for_gpu(options: Mapping[str, Any]) -> bool:
    """Whether arguments of `Segmenter.from_pretrained` name a GPU."""
    return str(options.get("device", "auto")).startswith(("gpu", "cuda"))


def is_final(content: str | None, error: str | None) -> bool:
    """Whether a row stays: not if a file could not be read, or the engine failed for this picture alone."""
    return content is not None and (error is None or error.startswith(ImageError.__name__))


def vocabulary_hash(words: Vocabulary) -> str:
    """SHA-256 of words and of what embedded them.

    Embeddings of one text encoder differ by rounding between processors, so they count only where they come
    from pictures, or from an encoder that is not known.
    """
    synonyms = {name: list(words.synonyms[name]) for name in words.names}
    own = bool(words.image_hash) or not words.text_hash
    rows = hashlib.sha256(words.embeddings.tobytes()).hexdigest() if own else ""
    return _hash([synonyms, list(words.templates), list(words.unused), words.text_hash, rows])


def _unknown_share(result: Segmentation) -> float:
    return float((result.labels == result.unknown).mean())


def _hash(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_password(path: str) -> str:
    """A path as it was given, without the user and password of an address."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        return path
    server, slash, place = rest.partition("/")
    return f"{scheme}://{server.rpartition('@')[2]}{slash}{place}"
