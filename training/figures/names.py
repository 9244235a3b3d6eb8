"""What the learned prompts are nearest to in language."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pixelclip_sdk import Vocabulary
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.words.classes import parse_classes
from training.figures.clusters import Clustered
from training.method.clustering import centred
from training.models.runtime import TorchTextEncoder
from training.runs.run import Run
from training.support.arguments import read_words

__all__ = ["Words", "began_as", "beside_clusters", "embed", "nearest", "with_classes", "write_names"]


@dataclass(frozen=True, eq=False)
class Words:
    """Names in the space that a run compares its clusters in.

    Attributes:
        names: N names.
        embeddings: float32 `(N, D)`, unit rows.
        clusters: float32 `(k, D)`, unit rows: the run's, for comparison by cosine.
    """

    names: list[str]
    embeddings: npt.NDArray[np.float32]
    clusters: npt.NDArray[np.float32]


def with_classes(
    words: Mapping[str, tuple[str, ...]], classes: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """A list of words with a set's classes first; a word that is also a class is taken once, as the class."""
    taken = {name.casefold() for name in classes}
    return {**classes, **{name: texts for name, texts in words.items() if name.casefold() not in taken}}


def embed(run: Run, words: Mapping[str, tuple[str, ...]]) -> npt.NDArray[np.float32]:
    """Words through the run's text tower, in its own templates, as the learnable words are.

    Args:
        run: The run.
        words: N names → synonyms.

    Returns:
        `(N, D)`, unit rows. The tower is frozen: runs from one model with the same templates share them.
    """
    encoder = TorchTextEncoder(run.pair, run.config.templates)
    return Vocabulary.encode(dict(words), encoder).embeddings


@torch.inference_mode()
def beside_clusters(run: Run, names: Sequence[str], rows: npt.NDArray[np.float32]) -> Words:
    """Words where the run's clusters are.

    A run that compares with centred clusters (`centre`) takes off what all clusters share. Here the words
    lose what all words share, in the same way: else each would be about as near as any other.

    Args:
        run: The run.
        names: N.
        rows: `(N, D)`, of `embed`.
    """
    found = torch.from_numpy(rows.copy())
    if run.config.centre:
        found = centred(found)
    return Words(list(names), found.numpy(), run.model.clusters().cpu().numpy())


def nearest(words: Words, count: int) -> list[list[tuple[str, float]]]:
    """The nearest names of each cluster, nearest first, with their cosines; at most `count` of each."""
    cosines = words.clusters @ words.embeddings.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [
        [(words.names[i], float(row[i])) for i in places] for row, places in zip(cosines, order, strict=True)
    ]


def began_as(run: Run) -> list[str]:
    """The random words that each cluster's prompt began as; the names of a run whose clusters have names.

    Of free vectors nothing can be said.
    """
    if run.config.classes == "vectors":
        return [""] * run.config.clusters
    if run.model.prompts is None:
        return list(parse_classes(read_words(run.config.names) or ()))
    tokenizer = run.pair.tokenizer
    return [
        " ".join((tokenizer.id_to_token(int(i)) or "?").removesuffix("</w>") for i in row)
        for row in run.model.prompts.start
    ]


def write_names(
    path: Path, found: Clustered, names: Sequence[Sequence[tuple[str, float]]], began: Sequence[str]
) -> None:
    """Writes a table of all clusters, the most used first, as CSV.

    Args:
        path: The file.
        found: How often each cluster is used.
        names: The nearest names of each cluster.
        began: What each began as.

    Raises:
        OutputError: The file cannot be written.
    """
    columns = [f"{what}_{i + 1}" for i in range(len(names[0])) for what in ("name", "cosine")]
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cluster", "masks_shown", "masks_in_batch", "began_as", *columns])
        for cluster in np.argsort(found.rank):
            cells = [cell for name, cosine in names[cluster] for cell in (name, f"{cosine:.4f}")]
            writer.writerow([cluster, found.shown[cluster], found.used[cluster], began[cluster], *cells])
