"""Whether two engines of a bundle give the same labels, measured on photos with everyday words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend, Float32Array
from pixelclip_sdk.bundle import Bundle, InputSpec
from pixelclip_sdk.image import load_image
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.preprocess import covered, fit
from pixelclip_sdk.words.text_encoder import TextEncoder
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["GATES", "WORDS", "Samples", "gate"]

GATES = {"fp32": 0.999, "fp16": 0.99, "bf16": 0.99, "int8": 0.97, "int8-weights": 0.98}
"""Precision → minimum share of pixels with the same label. ``"int8-weights"`` computes in fp32."""

WORDS = (
    "cat, dog, person, car, bus, bicycle, tree, grass, sky, road, building, wall, floor, table, chair, "
    "sofa, cup, plate, book, window"
)
"""Everyday words, some of them close to each other, so that small numerical differences change labels."""

_PHOTOS = Path(__file__).parent / "assets" / "photos"


def gate(bundle: Bundle) -> float:
    """Return the smallest share of pixels with the same label that the bundle's export had to reach, 0–1."""
    found: Any = bundle.verification.get("gate")
    return float(found) if isinstance(found, int | float) and 0 <= found <= 1 else GATES["fp32"]


class Samples:
    """Photos and words for a bundle, with the labels of `reference`.

    `photos` are files, four of the SDK's own by default; `spec` has other input sizes than the bundle's, and
    `most` is a largest number of words. The words are 20 of everyday life; without a text encoder, the
    bundle's largest vocabulary. A bundle without words gets those cells of the photos as words that
    `reference` finds least alike.
    """

    def __init__(
        self,
        bundle: Bundle,
        reference: Backend,
        *,
        spec: InputSpec | None = None,
        photos: Sequence[Path] | None = None,
        most: int | None = None,
    ) -> None:
        self._photos = [load_image(path) for path in photos or sorted(_PHOTOS.glob("*.jpg"))]
        self._spec = spec or bundle.input
        self.images = [fit(photo, self._spec)[None] for photo in self._photos]
        self.text = self._embeddings(bundle, reference, most)
        self._expected = [self._labels(reference, i) for i in range(len(self._photos))]

    def agreements(self, backend: Backend) -> list[float]:
        """Return, for each photo, the share of pixels to which `backend` gives the reference's label, 0–1."""
        return [float((self._labels(backend, i) == labels).mean()) for i, labels in enumerate(self._expected)]

    def _labels(self, backend: Backend, index: int) -> npt.NDArray[np.integer]:
        height, width = self._photos[index].shape[:2]
        logits = backend.logits(self.images[index], self.text)[0]
        return labels_upsampled(logits, (height, width), covered=covered((height, width), self._spec))

    def _embeddings(self, bundle: Bundle, reference: Backend, most: int | None) -> Float32Array:
        if bundle.has_text_encoder:
            return Vocabulary.encode(WORDS, TextEncoder(bundle)).embeddings[:most]
        loaded = [Vocabulary.load(bundle.file(file)) for file in bundle.vocabularies.values()]
        if loaded:
            return max(loaded, key=len).embeddings[:most]
        cells = np.concatenate(
            [reference.features(image).reshape(-1, reference.embedding_dim) for image in self.images]
        )
        cells -= cells.mean(axis=0)
        cells /= np.linalg.norm(cells, axis=1, keepdims=True)
        chosen = [0]
        while len(chosen) < min(20, most or 20, len(cells)):
            chosen.append(int((cells @ cells[chosen].T).max(axis=1).argmin()))
        return np.ascontiguousarray(cells[chosen], np.float32)
