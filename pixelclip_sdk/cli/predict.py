"""`pixelclip predict`: segment image files and write overlays, label maps and facts."""

import argparse
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.cli import common
from pixelclip_sdk.cli.outputs import FORMATS, JSON, LABELS, OVERLAY, Outputs, format_list
from pixelclip_sdk.errors import ImageError, VocabularyError
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.settings import plain_limits
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import printable, report
from pixelclip_sdk.support.files import is_file, is_folder
from pixelclip_sdk.support.images import RESULT_SUFFIXES, find_images
from pixelclip_sdk.support.redact import redact

# In bytes. File names have at most 255 on common file systems.
_LONGEST_STEM = 255 - max(len(suffix) for suffix in (*RESULT_SUFFIXES, JSON))


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("predict", help="segment images")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument(
        "--classes", help=f"{common.CLASSES_HELP}; without it, ten nouns are suggested for each image"
    )
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--format",
        type=format_list,
        default="png,json",
        metavar="LIST",
        help=f"what to write, separated by commas: {', '.join(FORMATS)} (default: %(default)s)",
    )
    common.add_json_option(parser)
    common.add_segmentation_options(parser)
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    images = _image_files(options.images)
    written: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    with common.load_segmenter(options) as segmenter, _outputs(options, segmenter, images) as outputs:
        for image, stem in zip(images, _result_stems(images), strict=True):
            try:
                if options.classes is None:
                    _set_suggested(segmenter, image)
                result = segmenter.predict(image)
            except ImageError as error:  # The other images are still segmented.
                report(f"pixelclip: {error}")
                failed.append({"source": str(image.absolute()), "error": str(error)})
                continue
            facts = _facts(result, image, segmenter)
            if options.json or "json" in options.format:
                facts["regions"] = [region.summary() for region in result.regions()]
            if "png" in options.format:
                facts |= {"overlay": stem + OVERLAY, "labels": stem + LABELS}
            outputs.write(result, image, stem, facts)
            written.append(facts)
            if not options.json:
                areas = common.describe_areas(result)
                print(f"{printable(str(image))}: {areas} ({result.speed['total']:.0f} ms)")
    limits = [name for name in ("threshold", "min_confidence") if getattr(options, name) is not None]
    if written and limits and not any(any(f["areas"].values()) for f in written):
        given = " and ".join(f"--{name.replace('_', '-')} {getattr(options, name)}" for name in limits)
        report(f"hint: no pixel reached {given}; lower it")
    if options.json:
        common.print_json({"images": written, "failed": failed})
    else:
        out = printable(str(options.out))
        print(
            f"{len(written)} of {len(images)} images"
            + (f" → {out}/{', '.join(FORMATS[name] for name in options.format)}" if written else "")
            + (f"; {len(failed)} failed, see above" if failed else "")
        )
    return 1 if failed else 0


def _outputs(options: argparse.Namespace, segmenter: Segmenter, images: Sequence[Path]) -> Outputs:
    model = segmenter.bundle.name if segmenter.bundle else options.model
    names = segmenter.vocabulary.names if options.classes is not None else ()
    if not names and (shared := [name for name in options.format if name in ("coco", "yolo-seg")]):
        raise VocabularyError(
            f"--format {','.join(shared)} has one list of classes for all images, but without --classes each "
            "image suggests its own. Give --classes"
        )
    return Outputs(options.out, options.format, names, images, model)


def _set_suggested(segmenter: Segmenter, image: Path) -> None:
    """Set the words that the image suggests, and say so."""
    words = [suggestion.name for suggestion in segmenter.suggest(image)]
    report(f"{printable(str(image))}: no --classes; suggested: {', '.join(words)}")
    segmenter.set_classes(words)


def _facts(result: Segmentation, image: Path, segmenter: Segmenter) -> dict[str, Any]:
    """What was found and all that is needed to know how it was made, JSON-ready."""
    bundle = segmenter.bundle
    return {
        "source": str(image.absolute()),
        "model": bundle.name if bundle else None,
        "model_sha256": bundle.files[IMAGE_ENCODER]["sha256"] if bundle else None,
        "backend": segmenter.backend,
        "threshold": segmenter.threshold,
        "min_confidence": plain_limits(segmenter.min_confidence),
        "background": list(segmenter.background.names) if segmenter.background else [],
        "refine": result.refine,
        "tiles": segmenter.tiles,
        "size": list(result.orig_shape),
        "names": list(result.names),
        "unknown": result.unknown,
        "areas": result.areas(),
        "presence": result.presence(),
        "speed_ms": dict(result.speed),
    }


def _image_files(arguments: Iterable[str]) -> list[Path]:
    """The files that the arguments name; folders are searched, without results of earlier runs."""
    files: list[Path] = []
    for argument in arguments:
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", argument):
            raise ImageError(
                f"{redact(argument)} is an address, and predict reads files. "
                "Download it first: curl -LO ADDRESS"
            )
        file = common.input_path(argument)
        if is_folder(file):
            images = [image for image in find_images(file) if not image.name.endswith(RESULT_SUFFIXES)]
            if not images:
                raise ImageError(
                    f"the folder {file} has no image files but results ({', '.join(RESULT_SUFFIXES)})"
                )
            files += images
        elif re.search(r"[*?\[]", argument) and not is_file(file):
            raise ImageError(
                f"no file is named {argument}: the shell did not expand the pattern. Remove the quotes "
                "around it, check that it matches a file, or name the folder."
            )
        else:
            files.append(file)
    return files


def _result_stems(files: Sequence[Path]) -> list[str]:
    """A unique name for the results of each file, from which the file can be recognised.

    That is the file's stem; if several files have it, their full names (``a.jpg`` and ``a.png``), or their
    folders' names as well (``d1_a`` and ``d2_a``), or numbers. Case does not make names differ, as on macOS
    and Windows. Names that are too long for the suffixes are shortened and end in a hash.
    """
    candidates = [(file.stem, file.name, f"{file.absolute().parent.name}_{file.stem}") for file in files]
    counts = [Counter(name.casefold() for name in names) for names in zip(*candidates, strict=True)]
    stems: dict[str, str] = {}  # Without case → as it is.
    for names in candidates:
        unique = (n for n, count in zip(names, counts, strict=True) if count[n.casefold()] == 1)
        chosen = stem = _shortened(next(unique, names[0]))
        number = 1
        while stem.casefold() in stems:
            number += 1
            stem = _shortened(f"{chosen}-{number}")
        stems[stem.casefold()] = stem
    return list(stems.values())


def _shortened(stem: str) -> str:
    encoded = os.fsencode(stem)
    if len(encoded) <= _LONGEST_STEM:
        return stem
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: _LONGEST_STEM - 9].decode(errors="ignore") + "-" + digest
