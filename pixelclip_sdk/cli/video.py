"""What `pixelclip video` does with the results of a stream."""

import contextlib
import statistics
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np

from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.files import is_file, is_folder, same
from pixelclip_sdk.support.signals import sigterm_interrupts
from pixelclip_sdk.video.pipeline import Buffer, OnError
from pixelclip_sdk.video.sources import FrameSource, open_source
from pixelclip_sdk.video.writer import write_video

__all__ = ["found", "run_video", "video_source"]

_REPORT_EVERY_S = 1.0
_STAGES = ("decode", "preprocess", "inference", "postprocess", "draw", "wait")
# The frames that the summary's times are taken from: memory must not grow with the video.
_RECENT = 1000


def video_source(text: str, out: Path | None, labels: Path | None) -> FrameSource:
    """Open what the command line names: ``0`` is a camera unless there is a file of that name.

    Raises:
        ImageError: It cannot be opened.
        OutputError: A result would replace it.
        BackendUnavailableError: It takes PyAV, which is not installed.
    """
    for result, what in ((out, "file"), (labels, "folder")):
        if result is not None and same(result, text):
            raise OutputError(f"{result} is the input; name another {what} for the result")
    return open_source(int(text) if text.isdecimal() and not (is_file(text) or is_folder(text)) else text)


def run_video(
    segmenter: Segmenter,
    source: FrameSource,
    *,
    buffer: Buffer,
    on_error: OnError,
    out: Path | None,
    labels: Path | None,
) -> None:
    """Segment a source to its end, or to Ctrl-C or SIGTERM if it is live, and write what was asked for.

    Progress goes to stderr while a video is written; else what was found goes to stdout, a line a second.

    Raises:
        PixelClipError: The source breaks off, or a result cannot be written. No video is left then.
    """
    report = _Report(source.count, quiet=out is not None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_interrupts())
        writer = stack.enter_context(write_video(out, source.fps)) if out is not None else None
        stream = segmenter.stream(source, buffer=buffer, on_error=on_error)
        results = stack.enter_context(contextlib.closing(stream))
        try:
            for result in results:
                clock = time.perf_counter()
                if writer is not None:
                    time_s = result.frame.time_s if result.frame else None
                    writer.write(np.asarray(result.plot(legend="inside")), time_s)
                if labels is not None and result.frame is not None:
                    result.save_labels(labels / f"{result.frame.index:06d}.png")
                report.add(result, (time.perf_counter() - clock) * 1e3)
        except KeyboardInterrupt:  # The way to end a recording: what there is of it is kept.
            if not source.live:
                raise
    report.end([str(path) for path in (out, labels) if path is not None])


def found(result: Segmentation) -> str:
    """The classes that cover most: ``cat 12%, sofa 5%``."""
    largest = list(result.areas().items())[:4]
    return ", ".join(f"{name} {area:.0%}" for name, area in largest if area) or "nothing but unknown"


class _Report:
    """Progress and a summary.

    Args:
        count: How many frames there will be, if known.
        quiet: Whether to print progress to stderr, and nothing of what was found.
    """

    def __init__(self, count: int | None, *, quiet: bool) -> None:
        self._of = f" of {count}" if count else ""
        self._quiet = quiet
        self._started = self._reported = time.perf_counter()
        self._frames = 0
        self._last: Segmentation | None = None
        self._speeds: deque[dict[str, float]] = deque(maxlen=_RECENT)

    def add(self, result: Segmentation, draw_ms: float) -> None:
        self._frames += 1
        self._last = result
        self._speeds.append({**result.speed, "draw": draw_ms})
        now = time.perf_counter()
        if now - self._reported < _REPORT_EVERY_S or result.frame is None:
            return
        self._reported = now
        if self._quiet:
            end = "\r" if sys.stderr.isatty() else "\n"
            place = f"frame {result.frame.index + 1}{self._of}"
            print(f"{place}, {self._fps():.1f} frames a second  ", end=end, file=sys.stderr, flush=True)
        else:
            self._print_found(result)

    def end(self, written: list[str]) -> None:
        if self._last is None or self._last.frame is None:
            return
        if not self._quiet:
            self._print_found(self._last)
        frame = self._last.frame
        lost = "".join(
            f", {number} {what}"
            for number, what in ((frame.dropped, "dropped"), (frame.damaged, "damaged"))
            if number
        )
        times = ", ".join(
            f"{stage} {statistics.median(speed[stage] for speed in self._speeds):.1f}"
            for stage in _STAGES
            if stage != "draw" or self._quiet
        )
        target = f" → {', '.join(written)}" if written else ""
        print(f"{self._frames} frames{lost}{target}; {self._fps():.1f} frames a second; median ms: {times}")

    def _fps(self) -> float:
        return self._frames / (time.perf_counter() - self._started)

    def _print_found(self, result: Segmentation) -> None:
        if result.frame is None:
            return
        time_s = f" ({result.frame.time_s:.1f} s)" if result.frame.time_s is not None else ""
        print(f"frame {result.frame.index}{time_s}: {found(result)}", flush=True)
