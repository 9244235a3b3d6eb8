"""Computes mIoU on labelled photos: ``evaluate.py --bundle BUNDLE --dataset camvid-11 --root DIR``.

PyTorch models and bundles use the SDK's pre- and postprocessing; only the backend differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.backends.engine import engine_files
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import path, positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.packages import imported
from training.evaluation.datasets import DATASETS, Dataset, load_dataset
from training.evaluation.metrics import Confusion
from training.evaluation.open_model import PROMPTS, Model, Source, open_model
from training.evaluation.protocols import (
    Official,
    Protocol,
    Whole,
    Windows,
    classify_masks,
    describe,
    segment,
)
from training.support.arguments import read_words
from training.support.processes import SPAWN, pool_of

__all__ = ["Job", "evaluate", "main"]

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


def evaluate(job: Job, *, workers: int = 1, progress: bool = True) -> tuple[Confusion, dict[str, Any]]:
    """Scores a model on all photos of a data set, after a check of all labels.

    Args:
        job: The evaluation.
        workers: Number of processes. They are distributed over the GPUs.
        progress: Show progress bars on stderr, if it is a terminal.

    Returns:
        The confusion matrix of the data set, and the report as JSON values.

    Raises:
        PixelClipError: The model, a photo or its labels cannot be used. No photo is skipped, because the
            score would not be comparable.
    """
    data = job.dataset
    disable = None if progress else True  # None: disabled if stderr is not a terminal
    for _ in tqdm(data.check_labels(), desc="labels", total=len(data), unit="file", disable=disable):
        pass
    confusion = Confusion.empty(len(data.classes))
    about: dict[str, Any] = {}
    with tqdm(total=len(data), unit="photo", disable=disable) as bar:
        for part, count, about in _parts(job, workers):  # noqa: B007 - the same for all parts
            confusion += part
            bar.update(count)
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
        **confusion.to_json(list(data.classes)),
        "environment": environment(),
    }
    return confusion, report


_Part = tuple[Confusion, int, dict[str, Any]]


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
    confusion = Confusion.empty(len(data.classes))
    encoders = model.vocabulary.embeddings, model.backend, model.spec
    for index in indices:
        photo, truth = data.pair(index)
        if job.masks and not isinstance(protocol, Windows):
            predicted = classify_masks(protocol, photo, truth, *encoders)
        else:
            predicted = segment(protocol, photo, *encoders)
        confusion += Confusion.of(truth, predicted, len(data.classes))
    return confusion, len(indices), model.about | {"protocol": describe(protocol, model.spec)}


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.bundle and (options.checkpoint or options.input_size or options.offline):
        parser.error("--checkpoint, --input-size and --offline require --model")
    if (options.short_side or options.stride) and options.protocol != "windows":
        parser.error("--short-side and --stride require --protocol windows")
    if options.split and options.dataset == "folder":
        parser.error("--split requires a named data set; a folder has no splits")
    return run_command("evaluate", lambda: _evaluate(options))


def _evaluate(options: argparse.Namespace) -> int:
    if options.protocol == "windows":
        protocol: Protocol = Windows(options.short_side or 480, options.stride or 160)
    else:
        protocol = Official() if options.protocol == "official" else Whole()
    job = Job(
        source=Source(
            name=options.bundle or options.model,
            bundle=options.bundle is not None,
            checkpoint=options.checkpoint,
            input_size=tuple(options.input_size) if options.input_size else None,
            prompts=options.prompts,
            device=options.device,
            offline=options.offline,
        ),
        dataset=load_dataset(
            options.dataset,
            options.root,
            split=options.split,
            classes=read_words(options.classes),
            ignore=options.ignore,
        ),
        protocol=protocol,
        masks=options.masks,
        threads=max(default_threads() // options.workers, 1) if options.workers > 1 else None,
    )
    confusion, report = evaluate(job, workers=options.workers)
    data = job.dataset
    print(f"{job.source} on {data.name}{data.split and ' ' + data.split}, {len(data)} photos")
    print(f"protocol {report['protocol']['name']}, templates {report['templates']}")
    print(confusion.table(list(data.classes)))
    if options.json:
        with atomic_write(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="Compute the mIoU of a model or a bundle on labelled photos."
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="NAME", help="PyTorch model, as for export/to_onnx.py")
    model.add_argument("--bundle", metavar="BUNDLE", help="exported bundle: name or folder")
    add = parser.add_argument
    add("--checkpoint", type=path, metavar="FILE", help="weights to use with --model")
    size = "input size to use with --model, in pixels"
    add("--input-size", "--imgsz", type=positive, nargs=2, metavar=("H", "W"), help=size)
    add("--offline", action="store_true", help="use downloaded weights only")
    add("--device", default="auto", help="cpu, cuda, cuda:1; for a bundle cpu, gpu, gpu:1")
    add("--dataset", required=True, choices=DATASETS, help="see docs/evaluation.md")
    add("--root", required=True, type=path, metavar="DIR", help="folder of the data set")
    add("--split", help="split of the data set (default: its validation split)")
    add("--classes", metavar='FILE|"a, b"', help="class names, in label order; required for `folder`")
    add(
        "--ignore",
        type=int,
        nargs="+",
        default=(),
        metavar="ID",
        help="label ids that are not scored; in a `folder` the classes have the other ids, in order",
    )
    add(
        "--protocol",
        choices=["official", "windows", "whole"],
        default="official",
        help="the paper's protocol (default), sliding windows, or the SDK's predict",
    )
    add("--short-side", type=positive, metavar="PX", help="windows: short side of the photo (default: 480)")
    add("--stride", type=positive, metavar="PX", help="windows: distance between windows (default: 160)")
    prompts = "prompt templates: the model's (default), none, the paper's single one or its ensemble"
    add("--prompts", choices=PROMPTS, default="model", help=prompts)
    add("--masks", action="store_true", help="classify the ground-truth masks")
    add("--workers", type=positive, default=1, help="number of processes (default: 1)")
    add("--json", type=path, metavar="FILE", help="also write the report to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
