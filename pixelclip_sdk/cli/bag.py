"""`pixelclip bag`: segment the images of a ROS bag into another one."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pixelclip_sdk.cli import common
from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import printable, report_progress
from pixelclip_sdk.support.packages import imported

if TYPE_CHECKING:
    from pixelclip_sdk.ros.convert import BagProgress

_REPORT_EVERY_S = 1.0


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser(
        "bag",
        help="segment the images of a ROS bag into another bag",
        description="Segment the images of a bag of ROS 1 or ROS 2. The new bag (rosbag2, mcap) has the "
        "topics /segmentation/mask, confidence and label_info, with the times and headers of the images. "
        "After an interruption, the same command goes on.",
    )
    parser.add_argument("source", type=path, metavar="IN", help="a folder of rosbag2, .mcap, .db3, or .bag")
    parser.add_argument("out", type=path, metavar="OUT", help="folder of the new bag; it must not exist")
    parser.add_argument("--classes", required=True, help=common.CLASSES_HELP)
    parser.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="NAME",
        help="a topic with images, raw or compressed; repeatable (default: the only one)",
    )
    parser.add_argument(
        "--overlay", action="store_true", help="also write the images with the regions drawn in"
    )
    parser.add_argument(
        "--rotate",
        type=int,
        choices=(0, 90, 180, 270),
        default=0,
        metavar="DEGREES",
        help="the turn, clockwise, that makes the images upright: 0, 90, 180 or 270 (default: 0)",
    )
    common.add_segmentation_options(parser)
    parser.set_defaults(run=_bag)


def _bag(options: argparse.Namespace) -> int:
    from pixelclip_sdk.ros.convert import segment_bag
    from pixelclip_sdk.ros.typestore import EXTRA

    imported("rosbags", EXTRA)
    if options.out.exists():  # Said before the model is loaded.
        raise OutputError(f"{options.out} exists; name another folder, or remove it")
    with common.load_segmenter(options) as segmenter:
        progress = _Progress()
        done = segment_bag(
            segmenter,
            options.source,
            options.out,
            topics=options.topic,
            overlay=options.overlay,
            rotate=options.rotate,
            report=progress.add,
        )
    print(progress.summary(done, options.out))
    return 0


class _Progress:
    """Prints progress to stderr, every second."""

    def __init__(self) -> None:
        self._started = self._reported = time.perf_counter()

    def add(self, now: "BagProgress") -> None:
        clock = time.perf_counter()
        if clock - self._reported < _REPORT_EVERY_S:
            return
        self._reported = clock
        left_s = (now.total - now.damaged - now.images) / self._rate(now)
        line = (
            f"image {now.images} of {now.total}, {self._rate(now):.1f} a second, "
            f"{left_s // 60:.0f}:{left_s % 60:02.0f} left"
        )
        report_progress(line)

    def summary(self, now: "BagProgress", out: Path) -> str:
        text = f"{now.images} images of {', '.join(map(printable, now.topics))}"
        if now.resumed:
            text += f" ({now.resumed} by earlier runs)"
        if now.damaged:
            text += f", {now.damaged} damaged"
        return f"{text} → {printable(str(out))}; {self._rate(now):.1f} a second"

    def _rate(self, now: "BagProgress") -> float:
        return (now.images - now.resumed) / (time.perf_counter() - self._started)
