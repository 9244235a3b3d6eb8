"""Sustained speed and memory on video, from file to labels: ``python benchmarks/video.py``.

The video is a moving crop of a real photo, 480×360, H.264, repeated until there are enough frames.
``--camera`` plays it in real time, as a live source that drops frames.
"""

import math
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from benchmarks.harness import tables
from benchmarks.harness.memory import memory_mb
from benchmarks.harness.photos import PHOTOS
from benchmarks.harness.results import command_parser, store
from pixelclip_sdk import PixelClipError, Segmentation, Segmenter
from pixelclip_sdk.benchmark import SAMPLE_WORDS
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import open_image_file
from pixelclip_sdk.video.sources import Frame, open_source
from pixelclip_sdk.video.writer import write_video

_STAGES = ("decode", "preprocess", "inference", "refine", "postprocess", "wait", "total")
_FPS = 30
_FEWEST = 10


def make_video(photo: Path, path: Path, *, height: int = 360, width: int = 480, frames: int = 300) -> None:
    """Write a video: a crop that circles over a photo of twice its size."""
    with open_image_file(photo) as image:
        large = np.asarray(ImageOps.fit(image.convert("RGB"), (2 * width, 2 * height)))
    with write_video(path, Fraction(_FPS)) as writer:
        for angle in np.linspace(0, 2 * math.pi, frames, endpoint=False):
            top = int(height * (0.5 + 0.5 * math.sin(angle)))
            left = int(width * (0.5 + 0.5 * math.cos(angle)))
            writer.write(np.ascontiguousarray(large[top : top + height, left : left + width]))


class RepeatedVideo:
    """A source that plays a video again and again, `live` in real time as a camera that drops frames."""

    def __init__(self, path: Path, frames: int, *, live: bool = False) -> None:
        self.name, self.live, self.fps, self.count = str(path), live, Fraction(_FPS), frames
        self._path = path

    def __iter__(self) -> Generator[Frame, None, None]:
        played, start = 0, time.perf_counter()
        while played < self.count:
            with closing(open_source(self._path)) as source:
                for frame in source:
                    if self.live:
                        time.sleep(max(start + played / _FPS - time.perf_counter(), 0))
                    yield frame._replace(time_s=played / _FPS)
                    played += 1
                    if played == self.count:
                        break

    def close(self) -> None:
        """Does nothing: the video is closed after each pass."""


def measure(results: Iterator[Segmentation], frames: int, *, warmup: int) -> dict[str, Any]:
    """Returns rate, stages, dropped frames and memory of a stream with at most `frames` results.

    Results of the warm-up do not count. Raises PixelClipError if fewer than 10 others come.
    """
    # Allocated before the first reading, so that growing memory is not the benchmark's own.
    rows = np.full((frames, len(_STAGES) + 2), np.nan)
    start, cpu, dropped = time.perf_counter(), time.process_time(), 0
    n = -warmup
    for result in results:
        n += 1
        if n == 0:
            start, cpu, dropped = time.perf_counter(), time.process_time(), result.frame.dropped_total
        elif n > 0:
            times = [result.speed[stage] for stage in _STAGES]
            rows[n - 1] = [*times, time.perf_counter() - start, memory_mb("VmRSS")]
    if n < _FEWEST:
        raise PixelClipError(f"{max(n, 0)} frames after {warmup} of warm-up; expected at least {_FEWEST}")
    *stages, seconds, memory = rows[:n].T
    thirds = np.diff(seconds[[0, n // 3, 2 * n // 3, n - 1]])
    tenth = n // 10  # Medians of memory: a single reading varies by the frames in flight.
    return {
        "frames": n,
        "fps": n / seconds[-1],
        "fps_slowest_third": n / 3 / thirds.max(),
        "longest_gap_ms": np.diff(seconds).max() * 1e3,
        "cpu_ms_per_frame": (time.process_time() - cpu) / n * 1e3,
        "dropped": int(result.frame.dropped_total - dropped),
        "stages_ms": {
            stage: {f"p{p}": float(np.percentile(times, p)) for p in (50, 95)}
            for stage, times in zip(_STAGES, stages, strict=True)
        },
        "rss_mb": {
            "start": float(np.median(memory[:tenth])),
            "end": float(np.median(memory[-tenth:])),
            "peak": float(memory.max()),
        },
    }


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--frames", type=positive, default=1000, help="timed frames (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=50, help="frames before them (default: %(default)s)")
    parser.add_argument("--threads", type=positive, help="threads for one frame (default: half the cores)")
    parser.add_argument("--camera", action="store_true", help=f"a live source of {_FPS} frames a second")
    options = parser.parse_args()
    if options.frames < _FEWEST or options.warmup < 0:
        parser.error(
            f"--frames {options.frames} --warmup {options.warmup}; expected at least {_FEWEST} and 0"
        )
    with (
        tempfile.TemporaryDirectory() as folder,
        Segmenter.from_pretrained(options.model, classes=SAMPLE_WORDS, threads=options.threads) as segmenter,
    ):
        clip = Path(folder) / "clip.mp4"
        make_video(PHOTOS / "chelsea.jpg", clip)
        source = RepeatedVideo(clip, options.frames + options.warmup, live=options.camera)
        facts = {
            "model": options.model,
            "backend": segmenter.engine_description,
            "classes": len(segmenter.vocabulary),
            "image_size": [360, 480],
            "camera": options.camera,
        }
        report = measure(segmenter.stream(source), options.frames, warmup=options.warmup)
    memory = report["rss_mb"]
    stages = [{"stage": stage, **values} for stage, values in report["stages_ms"].items()]
    print(
        f"{options.model}, {facts['backend']}, {facts['classes']} classes, 480×360\n"
        f"{report['frames']} frames, {report['dropped']} dropped: {report['fps']:.1f} frames a second, "
        f"{report['fps_slowest_third']:.1f} in the slowest third; longest gap "
        f"{report['longest_gap_ms']:.0f} ms; {report['cpu_ms_per_frame']:.1f} ms of CPU a frame\n\n"
        f"{tables.table(stages, {'stage': 'stage', 'p50, ms': 'p50', 'p95, ms': 'p95'})}\n\n"
        "resident memory, MB: " + ", ".join(f"{when} {value:.0f}" for when, value in memory.items())
    )
    ratios = {
        "memory at the start over the end": memory["start"] / memory["end"],
        "rate of the slowest third over all": report["fps_slowest_third"] / report["fps"],
    }
    store(options.json, {**facts, **report, "ratios": ratios})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("video", main))
