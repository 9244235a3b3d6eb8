"""Make masks without labels: ``python training/make_masks.py slic --images DIR --out MASKS``.

All sources write the files of `training/masks/format.py`, which the training reads. The same command
continues where it was stopped; photos that have masks are skipped.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
class _Entry:
    """A source of masks on the command line.

    Attributes:
        help: One line.
        arguments: Adds the source's own arguments to its parser.
        build: Makes the source from the parsed arguments.
    """

    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    build: Callable[[argparse.Namespace], MaskSource]


def _sa1b(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations", type=Path, metavar="DIR", help="the JSON files, if not beside the photos"
    )


def _regions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--maps",
        required=True,
        type=Path,
        metavar="DIR",
        help="REL/PATH.png for each photo, or REL/PATH/*.png, one file per mask",
    )
    parser.add_argument("--background", type=int, metavar="VALUE", help="value of pixels without a region")


def _slic(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--segments", type=positive, default=Slic.segments, help="about this many per photo")
    parser.add_argument(
        "--compactness", type=positive_float, default=Slic.compactness, help="higher is squarer"
    )
    parser.add_argument("--sigma", type=not_negative, default=Slic.sigma, help="blur first, in pixels")


def _felzenszwalb(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scale", type=positive_float, default=Felzenszwalb.scale, help="higher is larger")
    parser.add_argument("--sigma", type=not_negative, default=Felzenszwalb.sigma, help="blur, in pixels")
    parser.add_argument(
        "--min-size", type=positive, default=Felzenszwalb.min_size, help="smallest region, in pixels"
    )


def _dino(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clusters", type=positive, default=16, help="clusters per photo")
    parser.add_argument("--image-side", type=positive, default=640, metavar="PX", help="short side DINO sees")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights, if not timm's download")


def _sam(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, help="vit_h, vit_l, vit_b, or a configuration of SAM 2 (.yaml)"
    )
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="its weights")


def _build_dino(options: argparse.Namespace) -> MaskSource:
    digest = _digest(options.checkpoint)
    from training.masks.dino import DinoKMeans  # needs torch

    return DinoKMeans(options.clusters, options.image_side, options.checkpoint, digest)


def _build_sam(options: argparse.Namespace) -> MaskSource:
    digest = _digest(options.checkpoint)
    from training.masks.sam import SAM  # needs torch

    return SAM(options.model, options.checkpoint, digest)


def _digest(weights: Path | None) -> str:
    """Return the hash of a checkpoint, "" for none, after checking that torch is installed."""
    imported("torch")
    if weights is not None and not weights.is_file():
        raise PixelClipError(f"there is no checkpoint {weights}")
    return sha256(weights) if weights else ""


# A new source needs a class with the methods of `MaskSource` and an entry here.
SOURCES = {
    "sa1b": _Entry(
        "JSON files of SA-1B or of segment-anything's amg.py",
        _sa1b,
        lambda options: SA1B(options.annotations or options.images),
    ),
    "regions": _Entry(
        "PNG region maps or instances of any kind",
        _regions,
        lambda options: RegionMaps(options.maps, options.background),
    ),
    "slic": _Entry(
        "compact superpixels (SLIC); no weights",
        _slic,
        lambda options: Slic(options.segments, options.compactness, options.sigma),
    ),
    "felzenszwalb": _Entry(
        "regions that follow edges (Felzenszwalb); no weights",
        _felzenszwalb,
        lambda options: Felzenszwalb(options.scale, options.sigma, options.min_size),
    ),
    "dino": _Entry("k-means over DINO's patch features, as in the paper", _dino, _build_dino),
    "sam": _Entry("the automatic generator of SAM or SAM 2, if installed", _sam, _build_sam),
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
    parser = parser_class(
        prog="make_masks.py", description="Make masks without labels for a folder of photos. Resumable."
    )
    common = parser_class(add_help=False)
    common.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos, at any depth")
    common.add_argument("--out", required=True, type=Path, metavar="MASKS", help="output folder")
    common.add_argument(
        "--side", type=positive, default=512, metavar="PX", help="largest short side of the masks"
    )
    common.add_argument(
        "--workers",
        type=positive,
        default=argparse.SUPPRESS,
        help="processes (default: one per core; for dino and sam one per GPU, or one)",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE", parser_class=parser_class)
    for name, entry in SOURCES.items():
        entry.arguments(sources.add_parser(name, help=entry.help, description=entry.help, parents=[common]))
    return parser


if __name__ == "__main__":
    sys.exit(main())
