"""Masks without labels, from anywhere: ``python training/make_masks.py slic --images DIR --out MASKS``.

Each source writes the same files, which the training reads: `training/masks/format.py`. Run it again to go on
where it was stopped; photos whose masks are there are left alone.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.support.arguments import not_negative, positive, positive_float
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.packages import imported
from training.masks.region_maps import RegionMaps
from training.masks.sa1b import SA1B
from training.masks.source import MaskSource
from training.masks.superpixels import Felzenszwalb, Slic
from training.masks.write import SKIPPED, Report, make_masks

__all__ = ["main"]

_SHOWN = 10  # skipped photos that are named on the terminal; the file has them all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        source = _source(options)
        workers = getattr(options, "workers", 0) or _workers(source)
        report = make_masks(source, options.images, options.out, short_side=options.side, workers=workers)
    except (PixelClipError, OSError) as error:
        print(f"make_masks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make_masks: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    _tell(report, options.out)
    return 0 if report.written + report.kept else 1


def _source(options: argparse.Namespace) -> MaskSource:
    """The source that was asked for."""
    if options.source == "sa1b":
        return SA1B(options.annotations or options.images)
    if options.source == "regions":
        return RegionMaps(options.maps, options.background)
    if options.source == "slic":
        return Slic(options.segments, options.compactness, options.sigma)
    if options.source == "felzenszwalb":
        return Felzenszwalb(options.scale, options.sigma, options.min_size)
    imported("torch")  # what needs it is imported only when it is wanted
    weights = options.checkpoint
    if weights is not None and not weights.is_file():
        raise PixelClipError(f"there is no checkpoint {weights}")
    digest = sha256(weights) if weights else ""
    if options.source == "dino":
        from training.masks.dino import DinoKMeans

        return DinoKMeans(options.clusters, options.image_side, weights, digest)
    from training.masks.sam import SAM

    return SAM(options.model, weights, digest)


def _workers(source: MaskSource) -> int:
    """A process a core; of a source that computes on GPUs one a GPU, or one with all cores."""
    if source.on_gpus:
        import torch

        return max(torch.cuda.device_count(), 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell(report: Report, out: Path) -> None:
    """Say what was done, on stdout."""
    skipped = report.without | report.corrupt
    print(
        f"{out}: masks of {report.written + report.kept} photos ({report.written} made now); "
        f"skipped {len(report.without)} without masks, {len(report.corrupt)} corrupt"
    )
    for photo, reason in list(skipped.items())[:_SHOWN]:
        print(f"  {photo}: {reason}")
    if len(skipped) > _SHOWN:
        print(f"  … and {len(skipped) - _SHOWN} more, in {out / SKIPPED}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_masks.py",
        description="Write masks without labels for a folder of photos. Resumable.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    common.add_argument("--images", required=True, type=Path, metavar="DIR", help="photos, at any depth")
    common.add_argument("--out", required=True, type=Path, metavar="MASKS", help="where the masks go")
    common.add_argument(
        "--side", type=positive, default=512, metavar="PX", help="most pixels of the masks' short side"
    )
    common.add_argument(
        "--workers",
        type=positive,
        default=argparse.SUPPRESS,
        help="processes (default: one a core; of dino and sam one a GPU, or one)",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return sources.add_parser(
            name, help=text, description=text, parents=[common], formatter_class=parser.formatter_class
        )

    sa1b = add("sa1b", "SA-1B's JSON files, or those of segment-anything's amg.py")
    sa1b.add_argument(
        "--annotations", type=Path, metavar="DIR", help="the JSON files, if not beside the photos"
    )
    regions = add("regions", "PNG region maps or instances, whose values have no meaning")
    regions.add_argument(
        "--maps",
        required=True,
        type=Path,
        metavar="DIR",
        help="REL/PATH.png for each photo, or REL/PATH/*.png, a mask each",
    )
    regions.add_argument("--background", type=int, metavar="VALUE", help="value of pixels without a region")
    slic = add("slic", "compact superpixels (SLIC); no weights")
    slic.add_argument("--segments", type=positive, default=Slic.segments, help="about how many a photo")
    slic.add_argument(
        "--compactness", type=positive_float, default=Slic.compactness, help="higher is squarer"
    )
    slic.add_argument("--sigma", type=not_negative, default=Slic.sigma, help="blur beforehand, in pixels")
    felzenszwalb = add("felzenszwalb", "regions that follow edges (Felzenszwalb); no weights")
    felzenszwalb.add_argument(
        "--scale", type=positive_float, default=Felzenszwalb.scale, help="higher is larger"
    )
    felzenszwalb.add_argument(
        "--sigma", type=not_negative, default=Felzenszwalb.sigma, help="blur, in pixels"
    )
    felzenszwalb.add_argument(
        "--min-size", type=positive, default=Felzenszwalb.min_size, help="smallest region, in pixels"
    )
    dino = add("dino", "k-means over DINO's patch features, as in the paper")
    dino.add_argument("--clusters", type=positive, default=16, help="clusters a photo")
    dino.add_argument("--image-side", type=positive, default=640, metavar="PX", help="short side DINO sees")
    dino.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights, if not timm's download")
    sam = add("sam", "SAM's or SAM 2's automatic generator, if it is installed")
    sam.add_argument(
        "--model", required=True, help="vit_h, vit_l, vit_b, or a configuration of SAM 2 (.yaml)"
    )
    sam.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="its weights")
    return parser


if __name__ == "__main__":
    sys.exit(main())
