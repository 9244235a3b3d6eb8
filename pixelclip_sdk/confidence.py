"""Confidence: the probability, 0–1, that the label of a pixel is right.

It is a softmax of cosines divided by a temperature, over the classes and the background words of the model.
So a pixel that fits none of the classes has a low confidence. The rest of the picture counts as well:

- A word that fits its best places well is likelier everywhere: half of the mean cosine of its best places is
  added to its cosines.
- The prior probability of a class is its share of the picture, a step of the EM algorithm of Saerens, Latinne
  and Decaestecker ("Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation,
  2002). So a few pixels of a dog on a cat get a low confidence.

The probabilities are computed at the points of the grid and interpolated, each class where it is the label.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.cells import linear
from pixelclip_sdk.postprocess import covered_cells

__all__ = ["Calibration", "Rivals", "confidence_map", "posteriors"]

Float32Array = npt.NDArray[np.float32]

# Chosen on the development sets: docs/adr/0018-confidence-with-background-words.md.
_BEST = 0.05  # Share of the picture that a word's best places are.
_CONTEXT = 0.5  # Factor of their mean cosine.
_RAREST = 1e-4  # Smallest prior: a class that wins nothing keeps a chance.
# Multiplications of a product. OpenBLAS starts threads for larger ones, and they wait in a loop for the next.
_PRODUCT = 1 << 18


class Calibration(NamedTuple):
    """Constants of a model, fitted on labelled photos by ``benchmarks/calibration.py``.

    Attributes:
        temperature: Of the softmax, above 0. The default is CLIP's, for models where it was not fitted.
        background_weight: Factor of the background words' part of the sum, above 0.
    """

    temperature: float = 0.01
    background_weight: float = 1.0


class Rivals(NamedTuple):
    """What competes with the classes of one image.

    Attributes:
        asked: `(U, h, w)` float32 cosines of the user's background words, which compete like classes.
        everyday: `(B, h, w)` float32 cosines of the model's background words, which count by
            `Calibration.background_weight`.
        calibration: Constants of the model.
    """

    asked: Float32Array
    everyday: Float32Array
    calibration: Calibration


def posteriors(
    logits: Float32Array, rivals: Rivals, covered: tuple[float, float] = (1.0, 1.0)
) -> Float32Array:
    """Compute the probability of each class at the points of the grid: `(K, h, w)` float32, 0–1.

    Args:
        logits: `(K, h, w)` float32 cosines of the classes.
        rivals: What competes with them.
        covered: Fractions `(of the height, of the width)` of the grid that the image covers, from the top
            left. The rest has no effect on the priors.

    Examples:
        >>> import numpy as np
        >>> logits = np.array([[[0.3]]], np.float32)  # One class, a grid of 1×1.
        >>> everyday = np.array([[[0.25]]], np.float32)
        >>> rivals = Rivals(everyday[:0], everyday, Calibration(0.1))
        >>> posteriors(logits, rivals).round(2).tolist()  # 1 / (1 + exp(-1.5 * 0.05 / 0.1))
        [[[0.68]]]
    """
    cells = covered_cells(logits.shape[1:], covered)
    competing = np.concatenate([logits, rivals.asked]) if len(rivals.asked) else logits
    competing = _with_context(competing, cells)
    highest, scale = competing.max(axis=0), np.float32(1 / rivals.calibration.temperature)
    odds = np.exp((competing - highest) * scale)
    total = odds.sum(axis=0)
    shares = odds / total
    shares *= np.maximum(shares[:, *cells].mean(axis=(1, 2)), np.float32(_RAREST))[:, None, None]
    shares /= shares.sum(axis=0)
    if len(rivals.everyday):
        # Background words compete with the classes together, without the priors. Their odds may overflow to
        # infinity, where the classes have no chance.
        with np.errstate(over="ignore"):
            others = np.exp((_with_context(rivals.everyday, cells) - highest) * scale).sum(axis=0)
        shares /= 1 + np.float32(rivals.calibration.background_weight) * others / total
    result: Float32Array = shares[: len(logits)]
    return result


def _with_context(cosines: Float32Array, cells: tuple[slice, slice]) -> Float32Array:
    """Cosines `(K, h, w)` with a share of the mean of the best ones in the picture's cells."""
    inside = cosines[:, *cells].reshape(len(cosines), -1)
    best = max(round(inside.shape[1] * _BEST), 1)
    highest = np.partition(inside, -best, axis=1)[:, -best:]
    result: Float32Array = cosines + np.float32(_CONTEXT) * highest.mean(axis=1)[:, None, None]
    return result


def confidence_map(
    labels: npt.NDArray[np.uint8 | np.uint16],
    probabilities: Float32Array,
    covered: tuple[float, float] = (1.0, 1.0),
    strip: tuple[int, int] | None = None,
) -> Float32Array:
    """Interpolate the probability of every pixel's class.

    Args:
        labels: `(H, W)` the class of every pixel, without unknown ones.
        probabilities: `(K, h, w)` float32 of `posteriors`.
        covered: As for `posteriors`.
        strip: The first row of the labels in the image and the image's height; None for a whole image.

    Returns:
        `(H, W)` float32, 0–1.

    Examples:
        >>> import numpy as np
        >>> probabilities = np.array([[[0.8, 0.2]], [[0.1, 0.7]]], np.float32)  # Two classes, a grid of 1×2.
        >>> confidence_map(np.array([[0, 0, 1, 1]], np.uint8), probabilities).round(2).tolist()
        [[0.8, 0.65, 0.55, 0.7]]
    """
    spans = probabilities.shape[1] * covered[0], probabilities.shape[2] * covered[1]
    probabilities = probabilities[:, *covered_cells(probabilities.shape[1:], covered)]
    top, height = strip or (0, len(labels))
    down, across = map(linear, probabilities.shape[1:], spans, (height, labels.shape[1]))
    down = down[top : top + len(labels)]
    result = np.empty(labels.shape, np.float32)
    for label in _present(labels):
        won = labels == label
        rows, columns = _span(won.any(axis=1)), _span(won.any(axis=0))
        inner, across_part = down[rows] @ probabilities[label], across[columns].T
        part = np.empty((len(inner), across_part.shape[1]), np.float32)
        step = max(_PRODUCT // across_part.size, 1)
        for top in range(0, len(inner), step):
            np.matmul(inner[top : top + step], across_part, out=part[top : top + step])
        np.copyto(result[rows, columns], part, where=won[rows, columns])
    return result


def _present(labels: npt.NDArray[np.uint8 | np.uint16]) -> npt.NDArray[np.intp]:
    if labels.dtype == np.uint8:  # Many times as fast as bincount, which first widens every pixel.
        return np.flatnonzero(Image.fromarray(labels).histogram())
    return np.flatnonzero(np.bincount(labels.ravel()))


def _span(used: npt.NDArray[np.bool_]) -> slice:
    """From the first to the last True."""
    return slice(int(used.argmax()), len(used) - int(used[::-1].argmax()))
