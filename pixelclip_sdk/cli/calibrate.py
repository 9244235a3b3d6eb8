"""`pixelclip calibrate`: propose the smallest confidence of each class from a few photos."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from pixelclip_sdk.cli import common
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.propose import Proposal, propose_min_confidence
from pixelclip_sdk.support.arguments import path, share
from pixelclip_sdk.support.command import printable
from pixelclip_sdk.support.files import is_folder
from pixelclip_sdk.support.images import find_images

_OTHERS = "others"


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser(
        "calibrate", help="propose the smallest confidence of each class from a few photos"
    )
    parser.add_argument(
        "folder",
        type=path,
        metavar="DIR",
        help="a folder of photos per class, named after it; photos of nothing in a folder named others. "
        "A photo that shows two classes is in both folders, under one name",
    )
    parser.add_argument("--classes", required=True, help=common.CLASSES_HELP)
    parser.add_argument(
        "--max-false-alarms",
        type=share,
        metavar="SHARE",
        help="largest share of the other photos in which a class may be found, 0 to 1 "
        "(default: the best difference between found and false alarms)",
    )
    common.add_json_option(parser)
    common.add_run_options(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> int:
    photos = _photos(options.folder)
    others = photos.pop(_OTHERS, [])
    with common.load_segmenter(options) as segmenter:
        proposals = propose_min_confidence(
            segmenter, photos, others, max_false_alarms=options.max_false_alarms
        )
    if options.json:
        common.print_json({name: vars(proposal) for name, proposal in proposals.items()})
    else:
        _print(proposals)
    return 0


def _photos(folder: Path) -> dict[str, list[Path]]:
    """Class → its photos. Photos of one name count as the same photo."""
    if not is_folder(folder):
        raise ImageError(f"{folder} is not a folder; expected one with a folder of photos per class")
    first: dict[str, Path] = {}
    photos: dict[str, list[Path]] = {}
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            photos[inner.name] = [first.setdefault(photo.name, photo) for photo in find_images(inner)]
    if not photos.keys() - {_OTHERS}:
        raise ImageError(f"{folder} has no folders with photos; expected one per class, such as {folder}/cat")
    return photos


def _print(proposals: Mapping[str, Proposal]) -> None:
    width = max(len("class"), *map(len, proposals))
    print(f"{'class':<{width}}  limit  found  false alarms")
    for name, proposal in proposals.items():
        found = f"{proposal.found:>5.0%} of {proposal.photos}"
        print(
            f"{printable(name):<{width}}  {proposal.min_confidence:>5.2f}  {found}"
            f"  {proposal.false_alarms:.0%} of {proposal.others}"
        )
    limits = ", ".join(f"{name}={proposal.min_confidence:.2f}" for name, proposal in proposals.items())
    print(f'--min-confidence "{printable(limits)}"')
