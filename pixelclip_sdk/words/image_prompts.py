"""Image prompts: the embedding of a class from example pictures instead of words.

The embedding of an example is the mean feature of its cells, weighted by the share of the cell that the mask
covers. The embedding of a class is the mean of its examples, normalised.

Cosines between features are larger than cosines between features and words (the modality gap), so such a
class would win most pixels from words. Its cosines are therefore scaled down: the embedding is turned towards
a direction in which neither features nor words have any component.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import ImageError, VocabularyError
from pixelclip_sdk.image import ImageInput, open_image, picture_size
from pixelclip_sdk.words.classes import parse_classes

__all__ = ["Example", "Examples", "FeatureSource", "balanced", "embed_examples"]

Float32Array = npt.NDArray[np.float32]

Example = ImageInput | tuple[ImageInput, npt.NDArray[Any] | Image.Image]
"""A picture of the thing alone (a crop), or a photo and a mask `(H, W)`: an array of bool or numbers, or a
PIL image of one channel; zero is outside."""
Examples = Mapping[str, Sequence[Example]]
"""Name → examples."""

# Factor of a class's cosines. docs/adr/0021 compares values: larger ones let examples win from words.
SCALE = 0.7


class FeatureSource(Protocol):
    """What computes features; a `pixelclip_sdk.Segmenter`."""

    def features(self, image: ImageInput) -> Float32Array:
        """Compute the features `(h, w, D)` of an image."""


def embed_examples(
    examples: Examples, source: FeatureSource, words: Float32Array, scale: float = SCALE
) -> tuple[tuple[str, ...], Float32Array]:
    """Return the names and embeddings `(K, D)` of classes given by examples; see `Vocabulary.from_images`.

    Args:
        examples: Name → examples.
        source: Computes the features of the pictures.
        words: `(W, D)` unit embeddings of some words, to know which directions words use.
        scale: Factor of the classes' cosines, 0–1; see `balanced`.
    """
    if not isinstance(examples, Mapping):
        raise VocabularyError(
            f"examples are {type(examples).__name__}; expected name → pictures, {{'my mug': ['mug.jpg']}}"
        )
    names = tuple(parse_classes(list(examples)))
    means, cells = [], []
    for name, pictures in zip(names, examples.values(), strict=True):
        if isinstance(pictures, str | bytes) or not isinstance(pictures, Sequence) or not len(pictures):
            raise VocabularyError(
                f"the examples of {name!r} are {type(pictures).__name__}; expected a list of one or more "
                "pictures or of pairs (photo, mask)"
            )
        pooled = []
        for i, example in enumerate(pictures):
            try:
                features, weights = _seen(example, source)
            except ImageError as error:
                raise ImageError(f"example {i} of {name!r}: {error}") from error
            pooled.append(np.tensordot(weights / weights.sum(), features, axes=2))
            cells.append(features.reshape(-1, features.shape[2]))
        means.append(np.mean(pooled, axis=0))
    return names, balanced(np.stack(means), np.concatenate(cells), words, scale)


def balanced(means: Float32Array, cells: Float32Array, words: Float32Array, scale: float) -> Float32Array:
    """Return unit embeddings whose cosines with features are about `scale` times those of `means`.

    The difference to unit length goes into the direction in which `cells` and `words` are smallest: the
    eigenvector of the smallest eigenvalue of their second moments.

    Args:
        means: `(K, D)` mean features of the classes, of any length above zero.
        cells: `(n, D)` features.
        words: `(W, D)` unit embeddings of words.
        scale: Factor of the cosines, 0–1.
    """
    moment = cells.T @ cells / len(cells) + words.T @ words / len(words)
    silent = np.linalg.eigh(moment.astype(np.float64))[1][:, 0]
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    across = silent - (units @ silent)[:, None] * units
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    rows: Float32Array = (scale * units + np.sqrt(1 - scale**2) * across).astype(np.float32)
    return rows


def _seen(example: Example, source: FeatureSource) -> tuple[Float32Array, Float32Array]:
    """Return the features `(h, w, D)` of an example and the weights `(h, w)` of its cells."""
    if not isinstance(example, tuple):
        features = source.features(example)
        return features, np.ones(features.shape[:2], np.float32)
    if len(example) != 2:
        raise ImageError(f"it is a tuple of {len(example)}; expected a picture or a pair (photo, mask)")
    picture = open_image(example[0])
    mask = np.asarray(example[1])
    if mask.shape != picture_size(picture):
        raise ImageError(
            f"the mask has shape {mask.shape}; expected {picture_size(picture)}, the size (H, W) of the photo"
        )
    inside = (mask != 0).astype(np.float32)
    if not inside.any():
        raise ImageError("the mask is zero everywhere; expected the pixels of the thing to be non-zero")
    features = source.features(picture)
    size = features.shape[1], features.shape[0]
    # The mean of the mask's pixels in each cell.
    return features, np.asarray(Image.fromarray(inside).resize(size, Image.Resampling.BOX))
