"""How time and memory scale with classes, threads and input size: ``python benchmarks/scaling.py``.

Each sweep varies one thing. Otherwise an image is a 640×480 JPEG with 20 classes. The rows of a sweep run in
turns; times are medians an image, and ratios are to the first row. Peak memory is that of a fresh process
that runs one row (Linux). ``--camvid`` and ``--photos`` add the accuracy of each input size.
"""

import dataclasses
import multiprocessing
import random
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import tables
from benchmarks.harness.memory import memory_mb
from benchmarks.harness.photos import photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns, medians
from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import SAMPLE_WORDS
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.classes import class_list

SWEEPS = ("classes", "threads", "input")  # As in stored results.

_MODEL = "pixelclip-lite"
_CLASSES = (1, 4, 16, 64, 256, 1024, 4096)
_INPUTS = ((160, 224), (256, 320), (352, 448), (448, 576), (544, 672), (704, 896))


@dataclasses.dataclass(frozen=True)
class Task:
    """The work of one row. It is pickled for the process that measures memory."""

    name: str
    jpeg: bytes
    vocabulary: Vocabulary
    input_size: tuple[int, int] | None = None  # (H, W) of the model; None for the default.
    threads: int | None = None  # For one image; None for all.

    def segmenter(self) -> Segmenter:
        """Load the model."""
        return Segmenter.from_pretrained(
            _MODEL, classes=self.vocabulary, threads=self.threads, input_size=self.input_size
        )


def tasks(sweep: str, counts: Sequence[int] = _CLASSES) -> list[Task]:
    """Returns the rows of a sweep; `counts` are the numbers of classes of the sweep ``classes``."""
    jpeg = photo_jpeg(480, 640)
    if sweep == "classes":
        most = _embed(_nouns(max(counts)))
        parts = [Vocabulary(names=most.names[:n], embeddings=most.embeddings[:n]) for n in counts]
        return [Task(str(len(part)), jpeg, part) for part in parts]
    words = _embed(SAMPLE_WORDS)
    if sweep == "threads":
        most_threads = default_threads()
        powers = [2**i for i in range(most_threads.bit_length()) if 2**i < most_threads]
        return [Task(str(n), jpeg, words, threads=n) for n in (*powers, most_threads)]
    return [Task(tables.size_text(size), jpeg, words, input_size=size) for size in _INPUTS]


def _nouns(count: int) -> list[str]:
    """Everyday nouns, then the same nouns with adjectives."""
    nouns = list(class_list("everyday-nouns"))
    random.Random(0).shuffle(nouns)
    names = dict.fromkeys(f"{adjective}{noun}" for adjective in ("", "old ", "small ") for noun in nouns)
    return list(names)[:count]


def _embed(words: str | list[str]) -> Vocabulary:
    with Segmenter.from_pretrained(_MODEL, classes=words) as segmenter:
        return segmenter.vocabulary


def peak_mb(task: Task) -> float:
    """Segment the image three times; return this process's peak memory in megabytes (Linux)."""
    with task.segmenter() as segmenter:
        for _ in range(3):
            segmenter.predict(task.jpeg)
    return memory_mb("VmHWM")


def measure(rows: Sequence[Task], rounds: int) -> list[dict[str, Any]]:
    """Returns milliseconds an image, peak memory, and ratios to the first row."""
    contenders = {task.name: partial(task.segmenter().predict, task.jpeg) for task in rows}
    times = medians(in_turns(contenders, rounds))
    # Spawned: a forked process would start with the memory of this one.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        peaks = list(pool.map(peak_mb, rows))
    return [
        {
            "value": task.name,
            "ms": times[task.name],
            "peak_mb": peak,
            "time_ratio": times[task.name] / times[rows[0].name],
            "memory_ratio": peak / peaks[0],
        }
        for task, peak in zip(rows, peaks, strict=True)
    ]


def ratios(sweeps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns speed and memory against each sweep's first row, inverted so that more is better."""
    return {
        f"{sweep['name']} {row['value']}: {what} against {sweep['rows'][0]['value']}": 1 / row[f"{key}_ratio"]
        for sweep in sweeps
        for row in sweep["rows"][1:]
        for what, key in (("speed", "time"), ("memory", "memory"))
    }


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=15)
    parser.add_argument("--sweep", choices=SWEEPS, help="only this one (default: all)")
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="CamVid, for its mIoU")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos for photo_test.py")
    options = parser.parse_args()
    # Imported late: the processes that measure memory import this module.
    from benchmarks.harness.accuracy import accuracies

    sweeps: list[dict[str, Any]] = []
    for name in [options.sweep] if options.sweep else SWEEPS:
        rows = tasks(name)
        measured = measure(rows, options.rounds)
        if name == "input":
            for task, row in zip(rows, measured, strict=True):
                with task.segmenter() as segmenter:
                    row |= accuracies(segmenter, camvid=options.camvid, photos=options.photos)
        sweeps.append({"name": name, "rows": measured})
        print(tables.sweep(sweeps[-1]), end="\n\n")
    content = {"model": _MODEL, "rounds": options.rounds, "sweeps": sweeps, "ratios": ratios(sweeps)}
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("scaling", main))
