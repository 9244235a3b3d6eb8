"""The closed-form bridge between EfficientNet-Lite0 and MiniLM: no image, no gradient.

Two ways lead from a feature to the text space, and their unit vectors are added:

* **convex combination** (ConSE, Norouzi et al. 2014, eq. 3): class probabilities
  times the classes' name embeddings. Strong on things.
* **ridge**: the linear map that sends the classifier's row of a class to its
  name's embedding. Strong on what no class stands for.

The text space is whitened first (MiniLM's sentences share a large common part),
and a table of common words (`lite_words.py`) says where grass, water or dog lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.models.lite.words import CONTEXT_CLASSES, GROUP_CLASSES

__all__ = ["Alignment", "align", "mean_relu6", "word_classes"]

# Chosen by screening on photos, mosaics of photos and CamVid's training split.
WHITENING = 0.9  # exponent: 0 leaves the text space as it is, 1 whitens it fully
WHITENING_FLOOR = 1e-4  # added to the covariance's eigenvalues (of unit sentences)
RIDGE = 100.0  # lambda


@dataclass(frozen=True)
class Alignment:
    """Everything the two encoders need beside their towers; float32 tensors.

    Attributes:
        text_mean: `[384]`, mean sentence of the classes.
        whiten: `[384, 384]`, symmetric.
        class_points: `[1000, 384]`, unit rows: the classes in the text space.
        ridge: `[1280, 384]`, features to the text space.
        feature_mean: `[1280]`, the feature of nothing in particular.
        anchors: `[1000 + words, 384]`, unit rows: sentences as MiniLM gives them,
            the classes first, then the table's words.
        places: `[1000 + words, 384]`, unit rows: where each anchor lies in the joint space.
    """

    text_mean: Tensor
    whiten: Tensor
    class_points: Tensor
    ridge: Tensor
    feature_mean: Tensor
    anchors: Tensor
    places: Tensor


def mean_relu6(mean: Tensor, deviation: Tensor) -> Tensor:
    """The mean of ReLU6 of a normal variable, elementwise.

    `E[min(max(x, 0), 6)]` for `x ~ N(mean, deviation^2)`, the integral of the
    normal tail from 0 to 6. After batch norm, mean is its bias, deviation its
    weight: so the average feature is known without a photo.
    """
    unit = torch.distributions.Normal(torch.zeros(()), torch.ones(()))

    def partial(bound: float) -> Tensor:  # E[max(x - bound, 0)]
        z = (mean - bound) / deviation
        density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return (mean - bound) * unit.cdf(z) + deviation * density

    return partial(0.0) - partial(6.0)


def word_classes(names: Sequence[str]) -> dict[str, list[int]]:
    """The table of common words with class indices instead of names.

    Args:
        names: The 1000 class names, first synonym, in ImageNet's order.

    Raises:
        ValueError: The table names a class that does not exist.
    """
    index = {name: place for place, name in reversed(list(enumerate(names)))}
    table: dict[str, list[int]] = {}
    for word, text in CONTEXT_CLASSES.items():
        entries = text.split(",")
        unknown = [entry for entry in entries if not entry.isdigit() and entry not in index]
        if unknown:
            raise ValueError(f"the row of {word!r} names {unknown}, which are no ImageNet classes")
        table[word] = [int(entry) if entry.isdigit() else index[entry] for entry in entries]
    for word, text in GROUP_CLASSES.items():
        bounds = [entry.partition("-") for entry in text.split()]
        table[word] = [place for low, _, high in bounds for place in range(int(low), int(high or low) + 1)]
    return table


def align(
    class_sentences: Tensor,
    word_sentences: Tensor,
    members: Sequence[Sequence[int]],
    classifier: Tensor,
    feature_mean: Tensor,
) -> Alignment:
    """Solves the alignment.

    Args:
        class_sentences: `[1000, 384]`, unit rows, MiniLM's of the class names.
        word_sentences: `[words, 384]`, unit rows, of the table's words.
        members: For each word the classes whose photos show it.
        classifier: `[1000, 1280]`, the classifier's weight W.
        feature_mean: `[1280]`.

    Returns:
        The alignment. Deterministic: computed in float64.
    """
    sentences = class_sentences.double()
    mean = sentences.mean(0)
    centred = sentences - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    scale = (values.clamp(min=0) + WHITENING_FLOOR) ** (-WHITENING / 2)
    whiten = (vectors * scale) @ vectors.T
    points = F.normalize(centred @ whiten, dim=-1)

    weight = classifier.double()
    gram = weight.T @ weight + RIDGE * torch.eye(weight.shape[1], dtype=torch.float64)
    ridge = torch.linalg.solve(gram, weight.T @ points)

    words = F.normalize(torch.stack([points[list(m)].mean(0) for m in members]), dim=-1)
    return Alignment(
        text_mean=mean.float(),
        whiten=whiten.float(),
        class_points=points.float(),
        ridge=ridge.float(),
        feature_mean=feature_mean.float(),
        anchors=torch.cat([class_sentences, word_sentences]).float(),
        places=torch.cat([points, words]).float(),
    )
