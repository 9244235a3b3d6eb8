"""Closed-form alignment of EfficientNet-Lite0's features with MiniLM's text space: no image, no gradient.

An image feature reaches the text space on two paths, whose unit vectors are added:

* **Convex combination** (ConSE, Norouzi et al. 2014, eq. 3): class probabilities times the embeddings of the
  class names. Good at things.
* **Ridge regression**: the linear map from the classifier's weight row of a class to the embedding of its
  name. Good at everything that no class covers.

The text space is whitened first, because MiniLM's sentences share a large common component.
``common_words.txt`` adds the positions of words that ImageNet has no class for, such as grass or water.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Alignment", "align", "mean_relu6", "read_common_words"]

# Chosen by screening on photos, mosaics of photos and CamVid's training split.
WHITENING = 0.9  # exponent: 0 leaves the text space unchanged, 1 whitens it fully
WHITENING_FLOOR = 1e-4  # added to the eigenvalues of the covariance of unit sentences
RIDGE = 100.0  # regularisation λ

_COMMON_WORDS = Path(__file__).with_name("common_words.txt")


@dataclass(frozen=True)
class Alignment:
    """Parameters of both encoders besides their towers, float32; points, anchors and places are unit rows."""

    text_mean: Tensor  # [384], mean sentence embedding of the classes
    whiten: Tensor  # [384, 384], symmetric whitening matrix
    class_points: Tensor  # [1000, 384], the class names in the joint space
    ridge: Tensor  # [1280, 384], features → joint space
    feature_mean: Tensor  # [1280], mean image feature
    anchors: Tensor  # [1000 + words, 384], MiniLM's sentence embeddings of the classes and common words
    places: Tensor  # [1000 + words, 384], position of each anchor in the joint space


def mean_relu6(mean: Tensor, deviation: Tensor) -> Tensor:
    """Computes `E[min(max(x, 0), 6)]` for `x ~ N(mean, deviation²)`, elementwise.

    A batch norm gives its outputs a mean (its bias) and a deviation (its weight), so this is the average
    feature, found without a photo.
    """
    normal = torch.distributions.Normal(torch.zeros(()), torch.ones(()))

    def above(bound: float) -> Tensor:  # E[max(x - bound, 0)]
        z = (mean - bound) / deviation
        density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return (mean - bound) * normal.cdf(z) + deviation * density

    return above(0.0) - above(6.0)


def read_common_words(class_names: Sequence[str]) -> dict[str, list[int]]:
    """Reads ``common_words.txt``: word → indices of the ImageNet classes whose photos show it."""
    index = {name: i for i, name in reversed(list(enumerate(class_names)))}
    table: dict[str, list[int]] = {}
    for line in _COMMON_WORDS.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        word, _, classes = line.partition(": ")
        table[word] = []
        for entry in classes.split(", "):
            if numbers := re.fullmatch(r"(\d+)(?:-(\d+))?", entry):
                first, last = numbers[1], numbers[2] or numbers[1]
                table[word] += range(int(first), int(last) + 1)
            elif entry in index:
                table[word].append(index[entry])
            else:
                raise ValueError(f"the line of {word!r} names {entry!r}, which is not an ImageNet class")
    return table


def align(
    class_sentences: Tensor,
    word_sentences: Tensor,
    members: Sequence[Sequence[int]],
    classifier: Tensor,
    feature_mean: Tensor,
) -> Alignment:
    """Solves for the alignment, deterministically, in float64.

    Args:
        class_sentences: `[1000, 384]`, unit rows, MiniLM's embeddings of the class names.
        word_sentences: `[words, 384]`, unit rows, embeddings of the common words.
        members: For each common word, the classes whose photos show it.
        classifier: `[1000, 1280]`, weight of the classifier.
        feature_mean: `[1280]`, mean image feature.
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
