"""Make masks without labels: ``python training/make_masks.py slic --images DIR --out MASKS``.

The training reads their files. The same command continues where it was stopped; finished photos are skipped.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.support.arguments import not_negative, positive, positive_float
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.packages import imported
from training.masks.region_maps import RegionMaps
from training.masks.sa1b import SA1B
from training.masks.source import MaskSource
from training.masks.superpixels import Felzenszwalb, Slic
from training.masks.write import SKIPPED, Report, make_masks
from training.support.processes import available_cores

__all__ = ["SOURCES", "main"]

_SHOWN = 10  # skipped photos printed


@dataclass(frozen=True)
class _Source:
    """A source of masks on the command line."""

    help: str
    build: Callable[[argparse.Namespace], MaskSource]
    arguments: Mapping[str, dict[str, Any]]  # flags of the source, with the keywords of `add_argument`


def _with_weights(name: str, checkpoint: Path | None, *settings: Any) -> MaskSource:
    """Make a source that needs torch. The hash of its weights is one of its settings."""
    imported("torch")
    if checkpoint is not None and not checkpoint.is_file():
        raise PixelClipError(f"there is no checkpoint {checkpoint}")
    from training.masks.dino import DinoKMeans
    from training.masks.sam import SAM

    digest = sha256(checkpoint) if checkpoint else ""
    return {"dino": DinoKMeans, "sam": SAM}[name](*settings, checkpoint, digest)


# A new source needs a class with the methods of `MaskSource` and an entry here.
SOURCES = {
    "sa1b": _Source(
        "JSON files of SA-1B or of segment-anything's amg.py",
        lambda options: SA1B(options.annotations or options.images),
        {"--annotations": {"type": Path, "metavar": "DIR", "help": "JSON files, if not beside the photos"}},
    ),
    "regions": _Source(
        "PNG region maps or instances of any kind",
        lambda options: RegionMaps(options.maps, options.background),
        {
            "--maps": {
                "required": True,
                "type": Path,
                "metavar": "DIR",
                "help": "REL/PATH.png for each photo, or REL/PATH/*.png, one file per mask",
            },
            "--background": {"type": int, "metavar": "VALUE", "help": "value of pixels without a region"},
        },
    ),
    "slic": _Source(
        "compact superpixels (SLIC); no weights",
        lambda options: Slic(options.segments, options.compactness, options.sigma),
        {
            "--segments": {"type": positive, "default": Slic.segments, "help": "about this many per photo"},
            "--compactness": {"type": positive_float, "default": Slic.compactness, "help": "higher: squarer"},
            "--sigma": {"type": not_negative, "default": Slic.sigma, "help": "blur, in pixels"},
        },
    ),
    "felzenszwalb": _Source(
        "regions that follow edges (Felzenszwalb); no weights",
        lambda options: Felzenszwalb(options.scale, options.sigma, options.min_size),
        {
            "--scale": {"type": positive_float, "default": Felzenszwalb.scale, "help": "higher: larger"},
            "--sigma": {"type": not_negative, "default": Felzenszwalb.sigma, "help": "blur, in pixels"},
            "--min-size": {"type": positive, "default": Felzenszwalb.min_size, "help": "smallest, in pixels"},
        },
    ),
    "dino": _Source(
        "k-means over DINO's patch features, as in the paper",
        lambda options: _with_weights("dino", options.checkpoint, options.clusters, options.image_side),
        {
            "--clusters": {"type": positive, "default": 16, "help": "clusters per photo"},
            "--image-side": {"type": positive, "default": 640, "help": "short side for DINO, in pixels"},
            "--checkpoint": {"type": Path, "metavar": "FILE", "help": "weights, if not timm's download"},
        },
    ),
    "sam": _Source(
        "the automatic generator of SAM or SAM 2, if installed",
        lambda options: _with_weights("sam", options.checkpoint, options.model),
        {
            "--model": {"required": True, "help": "vit_h, vit_l, vit_b, or a SAM 2 configuration (.yaml)"},
            "--checkpoint": {"required": True, "type": Path, "metavar": "FILE", "help": "its weights"},
        },
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(
        "make_masks", lambda: _run(options), interrupted="the same command continues from here"
    )


def _run(options: argparse.Namespace) -> int:
    source = SOURCES[options.source].build(options)
    workers = getattr(options, "workers", 0) or _default_workers(source)
    report = make_masks(source, options.images, options.out, short_side=options.side, workers=workers)
    _print_report(report, options.out)
    return 0 if report.written + report.kept else 1


def _default_workers(source: MaskSource) -> int:
    """Return one process per core; for a source on GPUs one per GPU, or one without a GPU."""
    if source.on_gpus:
        import torch

        return max(torch.cuda.device_count(), 1)
    return available_cores()


def _print_report(report: Report, out: Path) -> None:
    skipped = report.without | report.corrupt
    print(
        f"{out}: masks of {report.written + report.kept} photos ({report.written} new); "
        f"skipped {len(report.without)} without masks, {len(report.corrupt)} corrupt"
    )
    for photo, reason in list(skipped.items())[:_SHOWN]:
        print(f"  {photo}: {reason}")
    if len(skipped) > _SHOWN:
        print(f"  … and {len(skipped) - _SHOWN} more, in {out / SKIPPED}")


def _parser() -> argparse.ArgumentParser:
    parser_class = functools.partial(
        argparse.ArgumentParser, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser = parser_class(prog="make_masks.py", description="Make masks without labels. Resumable.")
    common = parser_class(add_help=False)
    common.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos, at any depth")
    common.add_argument("--out", required=True, type=Path, metavar="MASKS", help="output folder")
    common.add_argument("--side", type=positive, default=512, metavar="PX", help="largest short side")
    common.add_argument(
        "--workers",
        type=positive,
        default=argparse.SUPPRESS,
        help="processes (default: one per core; for dino and sam one per GPU, or one)",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE", parser_class=parser_class)
    for name, source in SOURCES.items():
        command = sources.add_parser(name, help=source.help, description=source.help, parents=[common])
        for flag, settings in source.arguments.items():
            command.add_argument(flag, **settings)
    return parser


if __name__ == "__main__":
    sys.exit(main())
