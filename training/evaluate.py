"""mIoU on labelled photos: ``python training/evaluate.py --bundle BUNDLE --dataset camvid-11 --root DIR``.

Evaluates a PyTorch model (``--model NAME``, with ``--checkpoint FILE`` for weights of one's own) or an
exported bundle. Both go through the same code, the SDK's; only what computes the features differs. Labels
score, nothing learns from them.
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
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.backends.engine import engine_files
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.packages import imported
from training.evaluation.datasets import DATASETS, Dataset, load_dataset
from training.evaluation.metrics import Confusion
from training.evaluation.open_model import PROMPTS, Source, open_model
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

_CHUNK = 4  # photos that a process takes at a time


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to evaluate, and how.

    Attributes:
        source: The model.
        dataset: The photos.
        protocol: How a photo is seen.
        masks: Classify the ground-truth masks instead of segmenting.
        threads: CPU threads of a process; None for all.
    """

    source: Source
    dataset: Dataset
    protocol: Protocol
    masks: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.masks and isinstance(self.protocol, Windows):
            raise PixelClipError(
                "masks pool the features of one pass; expected the protocol official or whole"
            )


def evaluate(job: Job, *, workers: int = 1, progress: bool = True) -> tuple[Confusion, dict[str, Any]]:
    """Score a model on all photos of a set.

    Args:
        job: What to evaluate.
        workers: Processes; where several GPUs may be used, they take turns over them.
        progress: Show a bar on stderr.

    Returns:
        The confusion matrix over the whole set, and the report, JSON-ready.

    Raises:
        PixelClipError: The model, a photo or its labels cannot be used. Nothing is skipped: a score over
            fewer photos would be another score.
    """
    confusion = Confusion.empty(len(job.dataset.classes))
    about: dict[str, Any] = {}
    with tqdm(total=len(job.dataset), unit="photo", disable=not progress) as bar:
        for part, count, about in _parts(job, workers):  # noqa: B007 - the same from all
            confusion += part
            bar.update(count)
    data = job.dataset
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
    """Scores of a few photos at a time, in any number of processes."""
    chunks = [range(i, min(i + _CHUNK, len(job.dataset))) for i in range(0, len(job.dataset), _CHUNK)]
    if workers == 1:
        runner = _Runner(job)
        for chunk in chunks:
            yield runner(chunk)
        return
    ranks = SPAWN.Queue()
    for rank in range(workers):
        ranks.put(rank)
    with pool_of(workers, _start, (job, ranks)) as pool:
        yield from pool.map(_run, chunks)


class _Runner:
    """A process's share: its model, and what it does to photos."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.model = open_model(job.source, job.dataset.classes, job.threads)
        self.about = self.model.about | {"protocol": describe(job.protocol, self.model.spec)}

    def __call__(self, indices: range) -> _Part:
        total = Confusion.empty(len(self.job.dataset.classes))
        for index in indices:
            total += self._photo(index)
        return total, len(indices), self.about

    def _photo(self, index: int) -> Confusion:
        data, protocol = self.job.dataset, self.job.protocol
        photo, truth = data.pair(index)
        text, backend, spec = self.model.vocabulary.embeddings, self.model.backend, self.model.spec
        if self.job.masks:
            assert not isinstance(protocol, Windows)  # Job has checked
            predicted = classify_masks(protocol, photo, truth, text, backend, spec)
        else:
            predicted = segment(protocol, photo, text, backend, spec)
        return Confusion.of(truth, predicted, len(data.classes))


_share: tuple[Job, int] | None = None  # of a process that `_parts` started, and the process's number


def _start(job: Job, ranks: multiprocessing.Queue[int]) -> None:
    """Make this process one that evaluates."""
    global _share
    _share = job, ranks.get()


def _placed(source: Source, rank: int) -> Source:
    """The source for the n-th of several processes: on a GPU of its own, where there are several."""
    kind = source.device
    if source.bundle and kind == "auto":  # which takes the first GPU for engines, else the CPU
        kind = "gpu" if engine_files(find_bundle(source.name).path) else "cpu"
    if kind in ("auto", "cuda", "gpu") and (count := imported("torch").cuda.device_count()) > 1:
        return dataclasses.replace(source, device=f"{'gpu' if source.bundle else 'cuda'}:{rank % count}")
    return source


@functools.cache
def _opened() -> _Runner:
    # Not in `_start`: an error there would break the pool, and nobody would read it.
    assert _share is not None
    job, rank = _share
    return _Runner(dataclasses.replace(job, source=_placed(job.source, rank)))


def _run(chunk: range) -> _Part:
    return _opened()(chunk)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.bundle and (options.checkpoint or options.imgsz or options.offline):
        parser.error(
            "--checkpoint, --imgsz and --offline are for --model; a bundle has its weights and its size"
        )
    if (options.short_side or options.stride) and options.protocol != "windows":
        parser.error("--short-side and --stride are for --protocol windows")
    if options.split and options.dataset == "folder":
        parser.error("--split is a part of a set that --dataset names; a folder has none")
    try:
        classes = read_words(options.classes)
        job = Job(
            source=Source(
                name=options.bundle or options.model,
                bundle=options.bundle is not None,
                checkpoint=options.checkpoint,
                imgsz=tuple(options.imgsz) if options.imgsz else None,
                prompts=options.prompts,
                device=options.device,
                offline=options.offline,
            ),
            dataset=load_dataset(options.dataset, options.root, split=options.split, classes=classes),
            protocol=_protocol(options),
            masks=options.masks,
            threads=max(default_threads() // options.workers, 1) if options.workers > 1 else None,
        )
        confusion, report = evaluate(job, workers=options.workers)
        print(f"{job.source.name} on {job.dataset.name} {job.dataset.split}, {len(job.dataset)} photos")
        print(f"protocol {report['protocol']['name']}, templates {report['templates']}")
        print(confusion.table(list(job.dataset.classes)))
        if options.json:
            with atomic_write(options.json) as temporary:
                temporary.write_text(json.dumps(report, indent=1) + "\n")
    except (PixelClipError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("evaluate: interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def _protocol(options: argparse.Namespace) -> Protocol:
    if options.protocol == "windows":
        return Windows(options.short_side or 480, options.stride or 160)
    return Official() if options.protocol == "official" else Whole()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py", description="mIoU of a model or a bundle on labelled photos."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", metavar="NAME", help="PyTorch model, as in export/to_onnx.py")
    what.add_argument("--bundle", metavar="BUNDLE", help="exported bundle: its name or folder")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights instead of the model's own")
    parser.add_argument("--imgsz", type=positive, nargs=2, metavar=("H", "W"), help="input of the model")
    parser.add_argument("--offline", action="store_true", help="take weights from the cache, never download")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1; for a bundle cpu, gpu, gpu:1")
    parser.add_argument(
        "--dataset", required=True, choices=DATASETS, help="see training/evaluation/datasets.py"
    )
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="where it lies")
    parser.add_argument("--split", help="default: the one that is usually scored")
    parser.add_argument(
        "--classes", metavar='FILE|"a, b"', help="other names for the classes; needed for `folder`"
    )
    parser.add_argument(
        "--protocol",
        choices=["official", "windows", "whole"],
        default="official",
        help="the paper's (default), sliding windows of the model's size, or what the SDK does",
    )
    parser.add_argument(
        "--short-side", type=positive, metavar="PX", help="windows: the photo's (default: 480)"
    )
    parser.add_argument(
        "--stride", type=positive, metavar="PX", help="windows: from one to the next (default: 160)"
    )
    parser.add_argument(
        "--prompts", choices=PROMPTS, default="model", help="the model's templates (default), or the paper's"
    )
    parser.add_argument("--masks", action="store_true", help="classify the ground-truth masks")
    parser.add_argument("--workers", type=positive, default=1, help="processes (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
