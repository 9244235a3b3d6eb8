"""How time and memory scale: ``python benchmarks/scaling.py``.

Each sweep varies one thing: classes, image size, batch, threads, callers and videos, or input size.
Otherwise an image is a 640×480 JPEG with 20 classes. Callers and videos share one engine and have decoded
frames. The rows of a sweep run in turns; times are medians an image, and ratios are to the first row. Peak
memory is that of a fresh process that runs one row (Linux).

``--camvid`` and ``--photos`` add the accuracy of each input size.
"""

import dataclasses
import multiprocessing
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.harness import tables
from benchmarks.harness.photos import photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns, medians
from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import SAMPLE_WORDS
from pixelclip_sdk.image import ImageInput, load_image
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.classes import class_list

__all__ = ["SWEEPS", "Task", "main", "measure", "peak_mb", "tasks"]

SWEEPS = ("classes", "picture", "batch", "threads", "together", "input")
"""Names of the sweeps, as in stored results."""

_MODEL = "pixelclip-lite"
_CLASSES = (1, 4, 16, 64, 256, 1024, 4096)
_IMAGES = {
    "240p": (240, 320),
    "480p": (480, 640),
    "720p": (720, 1280),
    "1080p": (1080, 1920),
    "4K": (2160, 3840),
}
_BATCHES = (1, 2, 4, 8, 16)
_TOGETHER = (1, 2, 4)
_INPUTS = ((160, 224), (256, 320), (352, 448), (448, 576), (544, 672), (704, 896))
_FRAMES = 20  # Of each caller and video, so that starting threads does not count.


@dataclasses.dataclass(frozen=True)
class Task:
    """The work of one row. It is pickled for the process that measures memory.

    Attributes:
        name: Value of the row.
        images: Images of a call; for callers or videos, the one image that all of them use.
        vocabulary: The classes.
        input_size: Input size `(H, W)` of the model; None for the default.
        threads: CPU threads for one image; None for all.
        callers: Number of threads that call `predict`; 0 for one call of `predict_batch`.
        videos: Number of videos in one `stream`.
    """

    name: str
    images: tuple[ImageInput, ...]
    vocabulary: Vocabulary
    input_size: tuple[int, int] | None = None
    threads: int | None = None
    callers: int = 0
    videos: int = 0

    @property
    def image_count(self) -> int:
        """Images in a call."""
        return (self.callers + self.videos) * _FRAMES or len(self.images)

    def segmenter(self) -> Segmenter:
        """Load the model."""
        return Segmenter.from_pretrained(
            _MODEL, classes=self.vocabulary, threads=self.threads, input_size=self.input_size
        )

    def open(self) -> Callable[[], object]:
        """Load the model; return a function that does the work once."""
        segmenter = self.segmenter()
        if self.videos:
            videos = [[self.images[0]] * _FRAMES] * self.videos
            return lambda: [result.labels for result in segmenter.stream(*videos)]
        if self.callers:
            pool = ThreadPoolExecutor(self.callers)
            images = list(self.images) * self.callers * _FRAMES
            return lambda: list(pool.map(lambda image: segmenter.predict(image).labels.shape, images))
        return lambda: segmenter.predict_batch(self.images)


def tasks(
    sweep: str, photo: Callable[[int, int], bytes] = photo_jpeg, counts: Sequence[int] = _CLASSES
) -> list[Task]:
    """Returns the rows of a sweep.

    Args:
        sweep: One of `SWEEPS`.
        photo: Makes a JPEG of a height and a width.
        counts: Numbers of classes of the sweep ``classes``.
    """
    jpeg = photo(480, 640)
    if sweep == "classes":
        most = _embed(_nouns(max(counts)))
        parts = [Vocabulary(names=most.names[:n], embeddings=most.embeddings[:n]) for n in counts]
        return [Task(str(len(part)), (jpeg,), part) for part in parts]
    words = _embed(SAMPLE_WORDS)
    if sweep == "picture":
        return [Task(name, (photo(*size),), words) for name, size in _IMAGES.items()]
    if sweep == "batch":
        return [Task(str(n), (jpeg,) * n, words) for n in _BATCHES]
    if sweep == "threads":
        most_threads = default_threads()
        powers = [2**i for i in range(most_threads.bit_length()) if 2**i < most_threads]
        return [Task(str(n), (jpeg,), words, threads=n) for n in (*powers, most_threads)]
    if sweep == "together":
        frame, names = load_image(jpeg), {n: "s" * (n > 1) for n in _TOGETHER}
        callers = [Task(f"{n} caller{s}", (frame,), words, callers=n) for n, s in names.items()]
        return callers + [Task(f"{n} video{s}", (frame,), words, videos=n) for n, s in names.items()]
    return [Task(f"{size[1]}×{size[0]}", (jpeg,), words, input_size=size) for size in _INPUTS]


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
    """Do the work three times; return this process's peak memory in megabytes (Linux)."""
    run = task.open()
    for _ in range(3):
        run()
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def measure(rows: Sequence[Task], rounds: int) -> list[dict[str, Any]]:
    """Returns milliseconds an image, peak memory, and ratios to the first row."""
    times = medians(in_turns({task.name: task.open() for task in rows}, rounds))
    # Spawned: a forked process would start with the memory of this one.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        peaks = list(pool.map(peak_mb, rows))
    first_ms, first_mb = times[rows[0].name] / rows[0].image_count, peaks[0]
    return [
        {
            "value": task.name,
            "ms": times[task.name] / task.image_count,
            "peak_mb": peak,
            "time_ratio": times[task.name] / task.image_count / first_ms,
            "memory_ratio": peak / first_mb,
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
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="photos named after content, for photo_test.py"
    )
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
    store(
        options.json,
        {"model": _MODEL, "rounds": options.rounds, "sweeps": sweeps, "ratios": ratios(sweeps)},
    )
    return 0


if __name__ == "__main__":
    sys.exit(run_command("scaling", main))
