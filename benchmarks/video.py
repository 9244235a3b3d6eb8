"""Sustained speed and memory on video, file to labels: ``python benchmarks/video.py``.

It makes its own video: a window that wanders over a real photo, 480×360, H.264. The stream of results is
taken as fast as it comes, with nothing done to it; the video starts again until there are enough frames.

``--draw`` also draws and encodes every result, as ``pixelclip video --out`` does. ``--camera`` reads the same
video at its own pace, as a live source that drops what comes too fast.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.stored import store
from pixelclip_sdk import Segmentation, Segmenter
from pixelclip_sdk.benchmark import SAMPLE_WORDS, environment
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import open_image_file
from pixelclip_sdk.video.sources import Frame, FrameSource, open_source
from pixelclip_sdk.video.writer import write_video

_ROOT = Path(__file__).resolve().parents[1]
_STAGES = ("decode", "preprocess", "inference", "postprocess", "wait", "total")
_FPS = 30
_FEWEST = 10  # frames that say something
# Frames of the video that is made; what is more comes from reading it again.
_CLIP = 300


def make_video(photo: Path, path: Path, *, height: int = 360, width: int = 480, frames: int = _CLIP) -> None:
    """Write a video whose window wanders over a photo, twice its size, and ends where it began."""
    with open_image_file(photo) as image:
        scale = 2 * max(height / image.height, width / image.width)
        large = np.asarray(
            image.convert("RGB").resize((math.ceil(image.width * scale), math.ceil(image.height * scale)))
        )
    room = large.shape[0] - height, large.shape[1] - width
    with write_video(path, Fraction(_FPS)) as writer:
        for i in range(frames):
            turn = 2 * math.pi * i / frames
            top, left = (
                int(r * (0.5 + 0.5 * f(turn))) for r, f in zip(room, (math.sin, math.cos), strict=True)
            )
            writer.write(np.ascontiguousarray(large[top : top + height, left : left + width]))


class Repeated:
    """A video from its start again and again, so that it lasts; `live` paces it like a camera.

    Args:
        path: The video.
        frames: How many to give.
        live: Whether to give them at the video's own rate, and to let the stream drop some.
    """

    def __init__(self, path: Path, frames: int, *, live: bool = False) -> None:
        self.name, self.live, self.fps, self.count = str(path), live, Fraction(_FPS), frames
        self._path = path

    def __iter__(self) -> Generator[Frame, None, None]:
        given, start = 0, time.perf_counter()
        while given < self.count:
            source: FrameSource = open_source(self._path)
            try:
                for frame in source:
                    if self.live:
                        time.sleep(max(start + given / _FPS - time.perf_counter(), 0))
                    yield frame._replace(time_s=given / _FPS)
                    given += 1
                    if given == self.count:
                        break
            finally:
                source.close()

    def close(self) -> None:
        """Nothing is held between frames."""


def resident_mb() -> float:
    """Memory of this process that is in use now, in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(results: Iterator[Segmentation], frames: int, *, warmup: int) -> dict[str, Any]:
    """Rate, stages, drops and memory of a stream, after its first `warmup` results.

    Args:
        results: The stream.
        frames: At most so many come after the warm-up.
        warmup: Results that do not count; the clocks start with the last of them.
    """
    if frames < _FEWEST or warmup < 0:
        raise SystemExit(f"--frames is {frames} and --warmup {warmup}; expected at least {_FEWEST} and 0")
    # Filled beforehand, so that memory which grows is not the benchmark's own.
    stages = np.full((frames, len(_STAGES)), np.nan, np.float32)
    seconds, memory = np.full(frames, np.nan), np.full(frames, np.nan)
    start, cpu, dropped = time.perf_counter(), time.process_time(), 0
    n = -warmup
    for result in results:
        n += 1
        if n == 0:
            start, cpu, dropped = time.perf_counter(), time.process_time(), result.frame.dropped
        elif n > 0:
            stages[n - 1] = [result.speed[stage] for stage in _STAGES]
            seconds[n - 1], memory[n - 1] = time.perf_counter() - start, resident_mb()
    if n < _FEWEST:
        raise SystemExit(f"{max(n, 0)} frames after {warmup} of warm-up; expected at least {_FEWEST}")
    stages, seconds, memory = stages[:n], seconds[:n], memory[:n]
    thirds = np.diff(seconds[[0, n // 3, 2 * n // 3, n - 1]])
    tenth = n // 10  # Memory is a median over so many: a single reading may fall on a frame under way.
    return {
        "frames": n,
        "fps": n / seconds[-1],
        "fps_slowest_third": n / 3 / thirds.max(),
        "longest_gap_ms": np.diff(seconds).max() * 1e3,
        "cpu_ms_per_frame": (time.process_time() - cpu) / n * 1e3,
        "dropped": int(result.frame.dropped - dropped),
        "stages_ms": {
            stage: {f"p{p}": float(np.percentile(stages[:, i], p)) for p in (50, 95)}
            for i, stage in enumerate(_STAGES)
        },
        "rss_mb": {
            "start": float(np.median(memory[:tenth])),
            "middle": float(np.median(memory[n // 2 - tenth // 2 : n // 2 + tenth // 2 + 1])),
            "end": float(np.median(memory[-tenth:])),
            "peak": float(memory.max()),
        },
    }


def drawn(results: Iterator[Segmentation], path: Path) -> Iterator[Segmentation]:
    """Pass results on, after drawing and encoding them."""
    with write_video(path, Fraction(_FPS)) as writer:
        for result in results:
            writer.write(np.asarray(result.plot(legend="inside")), result.frame.time_s)
            yield result


def table(report: dict[str, Any]) -> str:
    """The report as text for people."""
    memory, stages = report["rss_mb"], report["stages_ms"]
    lines = [
        f"{report['frames']} frames, {report['dropped']} dropped: {report['fps']:.1f} frames a second, "
        f"{report['fps_slowest_third']:.1f} in the slowest third; "
        f"longest gap {report['longest_gap_ms']:.0f} ms; {report['cpu_ms_per_frame']:.1f} ms of CPU a frame",
        f"{'ms':<12}{'p50':>9}{'p95':>9}",
        *(f"{stage:<12}{values['p50']:9.1f}{values['p95']:9.1f}" for stage, values in stages.items()),
        "resident memory, MB: " + ", ".join(f"{when} {value:.0f}" for when, value in memory.items()),
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--frames", type=positive, default=1000, help="measured frames (default: %(default)s)"
    )
    parser.add_argument("--warmup", type=int, default=50, help="frames before them (default: %(default)s)")
    parser.add_argument(
        "--threads", type=positive, help="CPU threads for one frame (default: half the cores)"
    )
    parser.add_argument("--draw", action="store_true", help="draw and encode the results as well")
    parser.add_argument("--camera", action="store_true", help=f"a live source of {_FPS} frames a second")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        make_video(_ROOT / "examples" / "photos" / "chelsea.jpg", clip)
        source = Repeated(clip, options.frames + options.warmup, live=options.camera)
        with Segmenter.from_pretrained(
            options.model, classes=SAMPLE_WORDS, threads=options.threads
        ) as segmenter:
            results: Iterator[Segmentation] = segmenter.stream(source)
            if options.draw:
                results = drawn(results, Path(folder) / "drawn.mp4")
            load_before = os.getloadavg()[0]
            report = measure(results, options.frames, warmup=options.warmup)
            backend = segmenter.backend
    print(f"{options.model}, {backend}, {len(SAMPLE_WORDS.split(','))} classes, 480×360")
    print(table(report))
    if options.json:
        facts = {
            "model": options.model,
            "backend": backend,
            "classes": len(SAMPLE_WORDS.split(",")),
            "image_size": [360, 480],
            "draw": options.draw,
            "camera": options.camera,
            "load_before": load_before,
        }
        memory = report["rss_mb"]
        # Of both more is better, up to one: memory that does not grow, and a rate that does not fall.
        ratios = {
            "memory at the start over the end": memory["start"] / memory["end"],
            "rate of the slowest third over all": report["fps_slowest_third"] / report["fps"],
        }
        store(options.json, {**facts, **report, "ratios": ratios, "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("video", main))
