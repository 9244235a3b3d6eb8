"""`pixelclip batch`: segment an archive of pictures into Parquet files, resumable."""

import argparse
import contextlib
import dataclasses
import sys
import time
from typing import TYPE_CHECKING

from pixelclip_sdk.cli import common
from pixelclip_sdk.support.arguments import path, positive
from pixelclip_sdk.support.command import on_terminal, printable, report_progress

if TYPE_CHECKING:
    from pixelclip_sdk.batch.archive import ArchiveProgress

_REPORT_EVERY_S = 10.0


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser(
        "batch",
        help="segment an archive of pictures, on this machine or on a Ray cluster",
        description="Segment many pictures into Parquet files. The same command continues a stopped run.",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a folder, a picture, a pattern, a .txt list, a .parquet file of paths or bytes, or an address "
        "of one of these, such as s3://bucket/folder",
    )
    parser.add_argument("--classes", required=True, help=common.CLASSES_HELP)
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: the cluster of RAY_ADDRESS, or a new one on this machine (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "png"),
        default="parquet",
        help="where label maps go: into a column, or into files (default: %(default)s)",
    )
    parser.add_argument(
        "--shard-size",
        type=positive,
        default=256,
        metavar="N",
        help="pictures of a Parquet file (default: %(default)s)",
    )
    parser.add_argument(
        "--actors", type=positive, metavar="N", help="Ray's actors (default: as many as there is room for)"
    )
    common.add_json_option(parser)
    common.add_segmentation_options(parser)
    parser.set_defaults(run=_batch)


def _batch(options: argparse.Namespace) -> int:
    from pixelclip_sdk.batch.archive import segment_archive

    shown = -_REPORT_EVERY_S

    def show(now: "ArchiveProgress") -> None:
        nonlocal shown
        if not on_terminal() and time.monotonic() - shown < _REPORT_EVERY_S:
            return
        shown = time.monotonic()
        report_progress(f"{_counts(now)}{_left(now.left_s)}")

    # Ray prints to stdout that a worker has died.
    with contextlib.redirect_stdout(sys.stderr):
        done = segment_archive(
            options.inputs,
            options.out,
            common.parse_classes(options.model, options.classes),
            model=options.model,
            engine=options.engine,
            format=options.format,
            threads=options.threads,
            actors=options.actors,
            shard_size=options.shard_size,
            progress=show,
            backend=options.backend,
            device=options.device,
            input_size=tuple(options.input_size) if options.input_size else None,
            threshold=options.threshold,
            refine=options.refine,
            tiles=options.tiles,
            min_confidence=options.min_confidence,
            deadline_s=options.deadline,
            background=common.parse_classes(options.model, options.background)
            if options.background
            else None,
        )
    if options.json:
        common.print_json({**dataclasses.asdict(done), "out": str(options.out)})
    else:
        print(f"{_counts(done)} → {printable(str(options.out))}")
    return 1 if done.failed == done.pictures else 0


def _counts(now: "ArchiveProgress") -> str:
    made = now.done - now.kept
    text = f"{now.done} of {now.pictures} pictures"
    if now.kept:
        text += f", {now.kept} of them kept"
    if now.failed:
        text += f", {now.failed} with an error"
    return text + (f"; {made / now.seconds:.1f} a second" if made and now.seconds else "")


def _left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 90:
        return f"; {seconds:.0f} s left"
    return f"; {seconds / 60:.0f} min left" if seconds < 5400 else f"; {seconds / 3600:.1f} h left"
