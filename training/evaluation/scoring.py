"""Scores a model on a data set, in one process or in several."""

from __future__ import annotations

import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.backends.engine import engine_files
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.packages import imported
from training.evaluation.boundaries import Boundaries
from training.evaluation.datasets import Dataset
from training.evaluation.metrics import Confusion
from training.evaluation.open_model import Model, Source, open_model
from training.evaluation.protocols import Protocol, Whole, Windows, classify_masks, describe, segment
from training.support.processes import SPAWN, pool_of

__all__ = ["Job", "check_labels", "evaluate"]

_CHUNK = 4  # photos per task of a process


@dataclass(frozen=True, kw_only=True)
class Job:
    """An evaluation: the model, the labelled photos and the protocol.

    Attributes:
        masks: Classify the ground-truth masks instead of segmenting.
        threads: CPU threads per process; None for all.
    """

    source: Source
    dataset: Dataset
    protocol: Protocol
    masks: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.masks and isinstance(self.protocol, Windows):
            raise PixelClipError(
                "masks need the features of a single pass; use the protocol official or whole"
            )


def check_labels(data: Dataset, *, progress: bool = True) -> None:
    """Reads all labels of a data set and the sizes of its photos.

    Raises:
        PixelClipError: A file cannot be used.
    """
    with _bar(len(data), f"labels of {data.name}", progress) as bar:
        for _ in data.check_labels():
            bar.update()


def evaluate(job: Job, *, workers: int = 1, progress: bool = True) -> tuple[Confusion, dict[str, Any]]:
    """Scores a model on all photos of a data set.

    Args:
        job: The evaluation.
        workers: Number of processes. They are distributed over the GPUs.
        progress: Show progress bars on stderr, if it is a terminal.

    Returns:
        The confusion matrix of the data set, and the report as JSON values. The report has no
        ``"boundary"`` where masks are classified, because they have the boundaries of the ground truth.

    Raises:
        PixelClipError: The model, a photo or its labels cannot be used. No photo is skipped, because the
            score would not be comparable.
    """
    data = job.dataset
    names = list(data.classes)
    confusion, boundaries = Confusion.empty(len(names)), Boundaries.empty(len(names))
    about: dict[str, Any] = {}
    with _bar(len(data), data.name, progress) as bar:
        for part in _parts(job, workers):
            confusion += part.confusion
            boundaries += part.boundaries
            about = part.about  # the same for all parts
            bar.update(part.photos)
    report = {
        "task": "classification of ground-truth masks" if job.masks else "segmentation",
        **about,
        "dataset": {
            "name": data.name,
            "split": data.split,
            "photos": len(data),
            "expected_photos": data.expected,
            "labels": data.label_files,
        },
        "synonyms": {name: list(texts) for name, texts in data.classes.items()},
        **confusion.to_json(names),
        **({} if job.masks else {"boundary": boundaries.to_json(names)}),
        "environment": environment(),
    }
    return confusion, report


def _bar(total: int, what: str, progress: bool) -> Any:
    """Returns a progress bar for stderr; tqdm draws none if that is not a terminal."""
    return tqdm(total=total, desc=what, unit="photo", disable=None if progress else True)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The scores of a few photos."""

    confusion: Confusion
    boundaries: Boundaries
    photos: int
    about: dict[str, Any]


def _parts(job: Job, workers: int) -> Iterator[_Part]:
    """Yields the scores of a few photos at a time, from one or several processes."""
    chunks = [range(i, min(i + _CHUNK, len(job.dataset))) for i in range(0, len(job.dataset), _CHUNK)]
    if workers == 1:
        model = open_model(job.source, job.dataset.classes, job.threads)
        yield from (_score(job, model, chunk) for chunk in chunks)
        return
    ranks = SPAWN.Queue()
    for rank in range(workers):
        ranks.put(rank)
    with pool_of(workers, _start, (job, ranks)) as pool:
        yield from pool.map(_score_in_worker, chunks)


def _score(job: Job, model: Model, indices: range) -> _Part:
    """Scores a few photos."""
    data, protocol = job.dataset, job.protocol
    count = len(data.classes)
    confusion, boundaries = Confusion.empty(count), Boundaries.empty(count)
    encoders = model.vocabulary.embeddings, model.backend, model.spec
    for index in indices:
        photo, truth = data.pair(index)
        if job.masks and not isinstance(protocol, Windows):
            confusion += Confusion.of(truth, classify_masks(protocol, photo, truth, *encoders), count)
            continue
        if isinstance(protocol, Whole):
            predicted = model.segmenter.predict(photo, **protocol.options()).labels
        else:
            predicted = segment(protocol, photo, *encoders)
        confusion += Confusion.of(truth, predicted, count)
        boundaries += Boundaries.of(truth, predicted, count)
    about = model.about | {"protocol": describe(protocol, model.spec)}
    return _Part(confusion=confusion, boundaries=boundaries, photos=len(indices), about=about)


_assignment: tuple[Job, int] | None = None  # job and rank of this worker process


def _start(job: Job, ranks: multiprocessing.Queue[int]) -> None:
    """Initialises a worker process."""
    global _assignment
    _assignment = job, ranks.get()


@functools.cache
def _worker() -> tuple[Job, Model]:
    # Not in `_start`: an error there breaks the pool and is not reported.
    assert _assignment is not None
    job, rank = _assignment
    return job, open_model(_placed(job.source, rank), job.dataset.classes, job.threads)


def _score_in_worker(chunk: range) -> _Part:
    return _score(*_worker(), chunk)


def _placed(source: Source, rank: int) -> Source:
    """Returns the source for a worker process: with several GPUs, on one of them in turn."""
    kind = source.device
    if source.bundle and kind == "auto":  # the first GPU if there are engines, else the CPU
        kind = "gpu" if engine_files(find_bundle(source.name).path) else "cpu"
    if kind in ("auto", "cuda", "gpu") and (count := imported("torch").cuda.device_count()) > 1:
        return dataclasses.replace(source, device=f"{'gpu' if source.bundle else 'cuda'}:{rank % count}")
    return source
