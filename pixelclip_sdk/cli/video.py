"""`pixelclip video`: segment a stream; write a video or label maps, or print what was found."""

import argparse
import contextlib
import re
import statistics
import time
from collections import deque
from pathlib import Path

import numpy as np

from pixelclip_sdk.cli import common
from pixelclip_sdk.errors import OutputError, PixelClipError
from pixelclip_sdk.segmentation import FrameInfo, Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.smoothing import Smooth, check_smooth
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import printable, report, report_progress, terminal_json
from pixelclip_sdk.support.files import is_file, is_folder, same
from pixelclip_sdk.video.pipeline import BUFFERS, OnError
from pixelclip_sdk.video.sources import FrameSource, open_source
from pixelclip_sdk.video.writer import write_video

_REPORT_EVERY_S = 1.0
_STAGES = ("decode", "preprocess", "inference", "smooth", "refine", "postprocess", "draw", "wait")
# The summary's medians are of this many last frames: memory must not grow with the video.
_RECENT = 1000


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("video", help="segment a video, a camera, a network stream or a folder")
    parser.add_argument(
        "source",
        metavar="IN",
        help="a video file, a folder of images, a camera (0, /dev/video0) or an address",
    )
    parser.add_argument("--classes", required=True, help=common.CLASSES_HELP)
    parser.add_argument(
        "--out", type=path, metavar="FILE.mp4", help="video with the regions drawn in (default: print areas)"
    )
    parser.add_argument(
        "--labels",
        type=path,
        metavar="DIR",
        help="folder for one label map per frame, 000000.png, 000001.png, …; it must have none yet",
    )
    parser.add_argument(
        "--buffer",
        choices=BUFFERS,
        default="auto",
        help="which frames to process if they arrive too fast: only the latest, or all "
        "(default: auto, the latest for live sources)",
    )
    parser.add_argument(
        "--reopen",
        action="store_true",
        help="reconnect every second if a camera or a network stream is lost, until Ctrl-C",
    )
    parser.add_argument(
        "--smooth",
        type=_smooth,
        default="auto",
        metavar="SECONDS",
        help="average the labels of still regions over this time, 0 to 1, so that they do not flicker; "
        "0 or off: no smoothing (default: auto, 0.3 for sources with times, which folders have not)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: one line per frame, with its areas")
    common.add_segmentation_options(parser)
    parser.set_defaults(run=_video)


def _smooth(text: str) -> Smooth:
    if text in ("auto", "off"):
        return "auto" if text == "auto" else None
    try:
        seconds = float(text)
        check_smooth(seconds)
    except (ValueError, PixelClipError):
        raise argparse.ArgumentTypeError(f"{text!r}; expected seconds from 0 to 1, auto or off") from None
    return seconds


def _video(options: argparse.Namespace) -> int:
    # The stream closes the source in its reading thread: closing a camera during a read would crash.
    source = _open_input(options.source, options.out, options.labels)
    with common.load_segmenter(options) as segmenter:
        run_video(segmenter, source, options)
    return 0


def _open_input(text: str, out: Path | None, labels: Path | None) -> FrameSource:
    """Open the source that the command line names; ``0`` is a camera unless a file has that name.

    Refuses a result that would replace the input. Refuses a folder with label maps: after a shorter run,
    some of them would be of the old video.
    """
    for result, kind in ((out, "file"), (labels, "folder")):
        if result is not None and same(result, text):
            raise OutputError(f"{result} is the input; name another {kind} for the result")
    if labels is not None:
        old = [file for file in labels.glob("*.png") if re.fullmatch(r"\d{6,}", file.stem)]
        if old:
            raise OutputError(
                f"{labels} has {len(old)} label maps of an earlier run, such as {min(old).name}. "
                "Remove them, or name another folder for --labels."
            )
    if text.isdecimal() and not (is_file(text) or is_folder(text)):
        return open_source(int(text))
    return open_source(text if "://" in text else str(common.input_path(text)))


def run_video(segmenter: Segmenter, source: FrameSource, options: argparse.Namespace) -> None:
    """Segment a source to its end, or to a stop signal if it is live; write the results and close it."""
    out, labels = options.out, options.labels
    progress = _Progress(source.count, quiet=out is not None, as_json=options.json)
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(write_video(out, source.fps)) if out is not None else None
        on_error: OnError = "reopen" if options.reopen else "raise"
        stream = segmenter.stream(source, buffer=options.buffer, on_error=on_error, smooth=options.smooth)
        results = stack.enter_context(contextlib.closing(stream))
        try:
            for result in results:
                clock = time.perf_counter()
                assert result.frame is not None  # Results of streams have it.
                if writer is not None:
                    writer.write(np.asarray(result.plot(legend="inside")), result.frame.time_s)
                if labels is not None:
                    result.save_labels(labels / f"{result.frame.index:06d}.png")
                progress.add(result, result.frame, (time.perf_counter() - clock) * 1e3)
        except KeyboardInterrupt:  # This ends a recording, which is kept.
            if not source.live:
                raise
    progress.end([printable(str(result)) for result in (out, labels) if result is not None])


class _Progress:
    """Prints progress while frames are added, and a summary.

    Every second, the areas go to stdout.

    Args:
        count: Number of frames, if known.
        quiet: Every second, print progress to stderr instead.
        as_json: Print one JSON object per frame to stdout, and nothing else there.
    """

    def __init__(self, count: int | None, *, quiet: bool, as_json: bool) -> None:
        self._of = f" of {count}" if count else ""
        self._quiet = quiet
        self._json = as_json
        self._started = self._reported = time.perf_counter()
        self._frames = 0
        self._last: tuple[Segmentation, FrameInfo] | None = None
        self._speeds: deque[dict[str, float]] = deque(maxlen=_RECENT)

    def add(self, result: Segmentation, frame: FrameInfo, draw_ms: float) -> None:
        self._frames += 1
        self._last = result, frame
        self._speeds.append({**result.speed, "draw": draw_ms})
        if self._json:
            line = {"frame": frame.index, "time_s": frame.time_s, "areas": result.areas()}
            print(terminal_json(line), flush=True)
        now = time.perf_counter()
        if now - self._reported < _REPORT_EVERY_S:
            return
        self._reported = now
        if self._quiet:
            self._print_progress(frame.index)
        elif not self._json:
            self._print_areas(result, frame)

    def end(self, written: list[str]) -> None:
        if self._last is None:
            return
        result, frame = self._last
        if not self._quiet and not self._json:
            self._print_areas(result, frame)
        summary = f"{self._frames} frames"
        if frame.dropped_total:
            summary += f", {frame.dropped_total} dropped"
        if frame.damaged:
            summary += f", {frame.damaged} damaged"
        if written:
            summary += f" → {', '.join(written)}"
        times = ", ".join(
            f"{stage} {statistics.median(speed[stage] for speed in self._speeds):.1f}"
            for stage in _STAGES
            if stage in self._speeds[0] and (stage != "draw" or self._quiet)
        )
        summary += f"; {self._fps():.1f} frames per second; median ms: {times}"
        if self._json:
            report(summary)
        else:
            print(summary)

    def _fps(self) -> float:
        return self._frames / (time.perf_counter() - self._started)

    def _print_progress(self, index: int) -> None:
        line = f"frame {index + 1}{self._of}, {self._fps():.1f} frames per second"
        report_progress(line)

    def _print_areas(self, result: Segmentation, frame: FrameInfo) -> None:
        time_s = f" ({frame.time_s:.1f} s)" if frame.time_s is not None else ""
        print(f"frame {frame.index}{time_s}: {common.describe_areas(result)}", flush=True)
