"""How time and memory grow with what one asks for: ``python benchmarks/scaling.py``.

Sweeps over the number of classes, the picture's size, pictures at once, CPU threads, callers and videos on
one engine, and the model's input size. The rows of a sweep take turns in one run, warm. Times are medians a
picture, from a 640×480 JPEG's bytes to labels of 20 classes where the sweep does not say otherwise (callers
and videos have decoded frames), and ratios are to the sweep's first row. Peak memory is that of a fresh
process that loads the model and does this row alone (Linux).

With ``--camvid`` and ``--photos`` the sweep over input sizes also has the mIoU on CamVid's val photos and the
share of the photo test.
"""

import argparse
import dataclasses
import functools
import multiprocessing
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness.stored import store
from benchmarks.harness.turns import in_turns, medians
from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import SAMPLE_WORDS, environment
from pixelclip_sdk.image import ImageInput, load_image
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.classes import class_list

__all__ = ["SWEEPS", "Task", "main", "measure", "peak_mb"]

_MODEL = "pixelclip-lite"
_CLASSES = (1, 4, 16, 64, 256, 1024, 4096)
_PICTURES = {"240p": (240, 320), "480p": (480, 640), "720p": (720, 1280), "1080p": (1080, 1920)} | {
    "4K": (2160, 3840)
}
_BATCHES = (1, 2, 4, 8, 16)
_TOGETHER = (1, 2, 4)
_INPUTS = ((160, 224), (256, 320), (352, 448), (448, 576), (544, 672), (704, 896))
# Frames of each caller and video in a call: starting their threads should not count.
_FRAMES = 20
_SCORES = {"miou": "mIoU", "photo_test": "photo test"}

Picture = Callable[[int, int], bytes]
"""A JPEG of a height and a width."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A row's work; other processes get it as it is.

    Attributes:
        name: For people.
        images: The pictures of a call; with callers or videos, the one that all of them see.
        vocabulary: The words.
        input_size: The model's input `(H, W)`; None for its own.
        threads: CPU threads for one picture; None for all.
        callers: So many threads call `predict`; 0 for one call of `predict_batch`.
        videos: So many videos go through `stream`.
    """

    name: str
    images: tuple[ImageInput, ...]
    vocabulary: Vocabulary
    input_size: tuple[int, int] | None = None
    threads: int | None = None
    callers: int = 0
    videos: int = 0

    @property
    def pictures(self) -> int:
        """In a call."""
        return (self.callers + self.videos) * _FRAMES or len(self.images)

    def segmenter(self) -> Segmenter:
        """The model at this row's size."""
        return Segmenter.from_pretrained(
            _MODEL, classes=self.vocabulary, threads=self.threads, input_size=self.input_size
        )

    def open(self) -> Callable[[], object]:
        """Load the model; what comes back does the work once."""
        segmenter = self.segmenter()
        if self.videos:
            videos = [[self.images[0]] * _FRAMES] * self.videos
            return lambda: [result.labels for result in segmenter.stream(*videos)]
        if self.callers:
            pool = ThreadPoolExecutor(self.callers)
            images = list(self.images) * self.callers * _FRAMES
            return lambda: list(pool.map(lambda image: segmenter.predict(image).labels.shape, images))
        return lambda: segmenter.predict_batch(self.images)


def peak_mb(task: Task) -> float:
    """Most memory that this process has ever held, in megabytes, after three calls (Linux)."""
    run = task.open()
    for _ in range(3):
        run()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def measure(tasks: Sequence[Task], rounds: int) -> list[dict[str, Any]]:
    """Rows of a sweep: milliseconds a picture, peak memory, ratios to the first row."""
    samples = in_turns({task.name: task.open() for task in tasks}, rounds)
    times = medians(samples)
    # Spawned: a forked process would begin with this one's memory.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        peaks = list(pool.map(peak_mb, tasks))
    rows: list[dict[str, Any]] = [
        {"value": task.name, "ms": times[task.name] / task.pictures, "peak_mb": peak}
        for task, peak in zip(tasks, peaks, strict=True)
    ]
    first = rows[0]
    return [
        {**row, "time_ratio": row["ms"] / first["ms"], "memory_ratio": row["peak_mb"] / first["peak_mb"]}
        for row in rows
    ]


def words(count: int) -> Vocabulary:
    """So many nouns that stand for anything: the list of everyday nouns, then the same with an adjective."""
    nouns = list(class_list("everyday-nouns"))
    random.Random(0).shuffle(nouns)
    names = dict.fromkeys(f"{adjective}{noun}" for adjective in ("", "old ", "small ") for noun in nouns)
    with Segmenter.from_pretrained(_MODEL) as segmenter:
        return segmenter.set_classes(list(names)[:count])


def household() -> Vocabulary:
    """The 20 words of all other sweeps."""
    with Segmenter.from_pretrained(_MODEL, classes=SAMPLE_WORDS) as segmenter:
        return segmenter.vocabulary


def classes_sweep(picture: Picture, counts: Sequence[int] = _CLASSES) -> list[Task]:
    """More words."""
    most = words(max(counts))
    parts = [Vocabulary(names=most.names[:n], embeddings=most.embeddings[:n]) for n in counts]
    jpeg = picture(480, 640)
    return [Task(str(len(part)), (jpeg,), part) for part in parts]


def pictures_sweep(picture: Picture) -> list[Task]:
    """Larger pictures."""
    known = household()
    return [Task(name, (picture(*size),), known) for name, size in _PICTURES.items()]


def batch_sweep(picture: Picture) -> list[Task]:
    """More pictures in one call."""
    jpeg, known = picture(480, 640), household()
    return [Task(str(n), (jpeg,) * n, known) for n in _BATCHES]


def threads_sweep(picture: Picture) -> list[Task]:
    """More threads for one picture: powers of two, up to all that the process may use."""
    jpeg, known, most = picture(480, 640), household(), default_threads()
    counts = [2**i for i in range(most.bit_length()) if 2**i < most] + [most]
    return [Task(str(n), (jpeg,), known, threads=n) for n in counts]


def streams_sweep(picture: Picture) -> list[Task]:
    """One engine for several threads that call it, and for several videos, of decoded frames."""
    frame, known = load_image(picture(480, 640)), household()
    several = {n: "s" * (n > 1) for n in _TOGETHER}
    callers = [Task(f"{n} caller{s}", (frame,), known, callers=n) for n, s in several.items()]
    return callers + [Task(f"{n} video{s}", (frame,), known, videos=n) for n, s in several.items()]


def inputs_sweep(picture: Picture) -> list[Task]:
    """Larger inputs of the model, the same picture."""
    jpeg, known = picture(480, 640), household()
    return [Task(f"{size[1]}×{size[0]}", (jpeg,), known, input_size=size) for size in _INPUTS]


SWEEPS: Mapping[str, Callable[[Picture], list[Task]]] = {
    "classes": classes_sweep,
    "picture": pictures_sweep,
    "batch": batch_sweep,
    "threads": threads_sweep,
    "together": streams_sweep,
    "input": inputs_sweep,
}
"""Name → the tasks of a sweep, from what makes pictures."""


def ratios(sweeps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Speed and thrift against each sweep's first row, by name: more is better."""
    return {
        f"{sweep['name']} {row['value']}: {what} against {sweep['rows'][0]['value']}": 1 / row[f"{key}_ratio"]
        for sweep in sweeps
        for row in sweep["rows"][1:]
        for what, key in (("speed", "time"), ("memory", "memory"))
    }


def table(sweep: Mapping[str, Any]) -> str:
    """A sweep for people."""
    scores = {key: name for key, name in _SCORES.items() if key in sweep["rows"][0]}
    head = f"{sweep['name']:<14}{'ms':>10}{'× first':>9}{'fps':>9}{'peak MB':>10}{'× first':>9}"
    lines = [head + "".join(f"{name:>12}" for name in scores.values())]
    for row in sweep["rows"]:
        line = f"{row['value']:<14}{row['ms']:10.2f}{row['time_ratio']:9.2f}{1e3 / row['ms']:9.1f}"
        line += f"{row['peak_mb']:10.0f}{row['memory_ratio']:9.2f}"
        lines.append(line + "".join(f"{row[key]:12.2%}" for key in scores))
    return "\n".join(lines)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sweep", choices=SWEEPS, help="only this one (default: all)")
    parser.add_argument(
        "--rounds", type=positive, default=15, help="measured calls of each (default: %(default)s)"
    )
    parser.add_argument("--camvid", type=Path, metavar="DIR", help="CamVid, for the accuracy of input sizes")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos named after what they show, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    # Not above: they bring torch, and the processes whose memory is measured import this module.
    from benchmarks.compare import resized_jpeg
    from benchmarks.harness.accuracy import accuracies
    from benchmarks.harness.models import PHOTOS

    picture = functools.partial(resized_jpeg, PHOTOS / "coffee.jpg")
    results: list[dict[str, Any]] = []
    for name, make in SWEEPS.items():
        if options.sweep not in (None, name):
            continue
        tasks = make(picture)
        rows = measure(tasks, options.rounds)
        if name == "input":
            for task, row in zip(tasks, rows, strict=True):
                with task.segmenter() as segmenter:
                    row |= accuracies(segmenter, camvid=options.camvid, photos=options.photos)
        results.append({"name": name, "rows": rows})
        print(table(results[-1]), end="\n\n")
    if options.json:
        facts = {**environment(), "threads": default_threads()}
        content = {
            "model": _MODEL,
            "rounds": options.rounds,
            "sweeps": results,
            "ratios": ratios(results),
            "environment": facts,
        }
        store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("scaling", main))
