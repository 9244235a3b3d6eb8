"""The words that are nearest to each learned cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pixelclip_sdk import Vocabulary
from pixelclip_sdk.words.classes import parse_classes
from training.figures.clusters import Clustered
from training.method.clustering import centred
from training.models.runtime import TorchTextEncoder
from training.runs.run import Run
from training.support.arguments import read_words

__all__ = [
    "WordVectors",
    "embed_words",
    "initial_words",
    "merge_classes",
    "name_table",
    "nearest_words",
    "with_clusters",
]


@dataclass(frozen=True, eq=False)
class WordVectors:
    """Words and a run's clusters in one space, for comparison by cosine."""

    names: list[str]
    embeddings: npt.NDArray[np.float32]  # (N, D), unit rows
    clusters: npt.NDArray[np.float32]  # (k, D), unit rows


def merge_classes(
    words: Mapping[str, tuple[str, ...]], classes: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return the classes, followed by the words that are no class."""
    taken = {name.casefold() for name in classes}
    return {**classes, **{name: texts for name, texts in words.items() if name.casefold() not in taken}}


def embed_words(run: Run, words: Mapping[str, tuple[str, ...]]) -> npt.NDArray[np.float32]:
    """Embed N words (name → synonyms) by the run's text tower and templates: `(N, D)`, unit rows.

    The text tower is frozen, so runs from one model with equal templates share the embeddings.
    """
    return Vocabulary.encode(dict(words), TorchTextEncoder(run.pair, run.config.templates)).embeddings


@torch.inference_mode()
def with_clusters(run: Run, names: Sequence[str], embeddings: npt.NDArray[np.float32]) -> WordVectors:
    """Return words, embedded by `embed_words`, and a run's clusters as the run compares them.

    A run with ``centre: true`` centres its clusters. The words are then centred by their own mean, because
    they would otherwise all be about equally near to each cluster.
    """
    vectors = torch.from_numpy(embeddings.copy())
    if run.config.centre:
        vectors = centred(vectors)
    return WordVectors(list(names), vectors.numpy(), run.model.clusters().cpu().numpy())


def nearest_words(words: WordVectors, count: int) -> list[list[tuple[str, float]]]:
    """Return up to `count` nearest words of each cluster with their cosines, nearest first."""
    cosines = words.clusters @ words.embeddings.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [
        [(words.names[i], float(row[i])) for i in nearest]
        for row, nearest in zip(cosines, order, strict=True)
    ]


def initial_words(run: Run) -> list[str]:
    """Return the random words that each prompt started from, or the given names; empty for free vectors."""
    if run.config.classes == "vectors":
        return [""] * run.config.clusters
    if run.model.prompts is None:
        return list(parse_classes(read_words(run.config.names) or ()))
    tokenizer = run.pair.tokenizer
    return [
        " ".join((tokenizer.id_to_token(int(i)) or "?").removesuffix("</w>") for i in row)
        for row in run.model.prompts.start
    ]


def name_table(
    run: Run, clustered: Clustered, names: Sequence[Sequence[tuple[str, float]]]
) -> list[list[Any]]:
    """Return a table of all clusters, the most used first, after a row of headings."""
    initial = initial_words(run)
    headings = [f"{column}_{i + 1}" for i in range(len(names[0])) for column in ("name", "cosine")]
    rows: list[list[Any]] = [["cluster", "masks_shown", "masks_in_batch", "began_as", *headings]]
    for cluster in np.argsort(clustered.rank):
        cells = [cell for name, cosine in names[cluster] for cell in (name, f"{cosine:.4f}")]
        rows.append([cluster, clustered.shown[cluster], clustered.used[cluster], initial[cluster], *cells])
    return rows
