"""`pixelclip predict`: segment image files and write overlays, label maps and facts."""

import argparse
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.cli.common import (
    CLASSES_HELP,
    Parsers,
    add_json_option,
    add_model_options,
    add_threshold_option,
    describe_areas,
    input_path,
    load_segmenter,
    print_json,
)
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import printable, report
from pixelclip_sdk.support.files import atomic_write, is_file, is_folder
from pixelclip_sdk.support.images import RESULT_SUFFIXES, find_images
from pixelclip_sdk.support.redact import redact

__all__ = ["add_parser"]

_OVERLAY, _LABELS = RESULT_SUFFIXES
_JSON = ".json"
# The file name limit of common file systems, in bytes.
_LONGEST_NAME = 255
_LONGEST_STEM = _LONGEST_NAME - max(len(suffix) for suffix in (*RESULT_SUFFIXES, _JSON))


def add_parser(commands: Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("predict", help="segment images")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files, or folders of them")
    parser.add_argument("--classes", required=True, help=CLASSES_HELP)
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="folder for the results")
    add_threshold_option(parser)
    add_json_option(parser)
    add_model_options(parser)
    parser.set_defaults(run=_predict)


def _predict(options: argparse.Namespace) -> int:
    images = _image_files(options.images)
    written: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    with load_segmenter(options, options.classes) as segmenter:
        for image, stem in zip(images, _result_stems(images), strict=True):
            try:
                result = segmenter.predict(image)
            except ImageError as error:  # The other images are still segmented.
                report(f"pixelclip: {error}")
                failed.append({"source": str(image.absolute()), "error": str(error)})
                continue
            facts = _facts(result, image, stem, segmenter)
            _write_result(result, facts, options.out, stem)
            written.append(facts)
            if not options.json:
                print(f"{printable(str(image))}: {describe_areas(result)} ({result.speed['total']:.0f} ms)")
    if written and options.threshold is not None and not any(any(f["areas"].values()) for f in written):
        report(f"hint: no pixel reached --threshold {options.threshold}; lower it")
    if options.json:
        print_json({"images": written, "failed": failed})
    else:
        out = printable(str(options.out))
        print(
            f"{len(written)} of {len(images)} images → {out}/NAME{_OVERLAY}, NAME{_LABELS}, NAME{_JSON}"
            + (f"; {len(failed)} failed, see above" if failed else "")
        )
    return 1 if failed else 0


def _facts(result: Segmentation, image: Path, stem: str, segmenter: Segmenter) -> dict[str, Any]:
    """All that is needed to know how a result was made, JSON-ready."""
    bundle = segmenter.bundle
    return {
        "source": str(image.absolute()),
        "model": bundle.name if bundle else None,
        "model_sha256": bundle.files[IMAGE_ENCODER]["sha256"] if bundle else None,
        "backend": segmenter.backend,
        "threshold": segmenter.threshold,
        "size": list(result.orig_shape),
        "names": list(result.names),
        "unknown": result.unknown,
        "areas": result.areas(),
        "speed_ms": dict(result.speed),
        "overlay": stem + _OVERLAY,
        "labels": stem + _LABELS,
    }


def _write_result(result: Segmentation, facts: dict[str, Any], folder: Path, stem: str) -> None:
    result.save(folder / facts["overlay"])
    result.save_labels(folder / facts["labels"])
    with atomic_write(folder / f"{stem}{_JSON}") as temporary:
        # A path that is not UTF-8 has surrogates, which JSON can escape but UTF-8 cannot hold.
        text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _image_files(arguments: Iterable[str]) -> list[Path]:
    """The files that the arguments name; folders are searched, without results of earlier runs.

    Raises:
        ImageError: An argument is empty, an address or an unexpanded pattern, or a folder has no images.
    """
    files: list[Path] = []
    for argument in arguments:
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", argument):
            raise ImageError(
                f"{redact(argument)} is an address, and predict reads files. "
                "Download it first: curl -LO ADDRESS"
            )
        file = _checked_path(argument)
        if not is_folder(file):
            files.append(file)
            continue
        images = [image for image in find_images(file) if not image.name.endswith(RESULT_SUFFIXES)]
        if not images:
            raise ImageError(
                f"the folder {file} has no image files but results ({', '.join(RESULT_SUFFIXES)})"
            )
        files += images
    return files


def _checked_path(argument: str) -> Path:
    file = input_path(argument)
    if re.search(r"[*?\[]", argument) and not is_file(file) and not is_folder(file):
        raise ImageError(
            f"no file is named {argument}: the shell did not expand the pattern. Remove the quotes around "
            "it, check that it matches a file, or name the folder."
        )
    return file


def _result_stems(files: Sequence[Path]) -> list[str]:
    """A unique name for the results of each file, from which the file can be recognised.

    That is the file's stem; if several files have it, their full names (``a.jpg`` and ``a.png``), or their
    folders' names as well (``d1_a`` and ``d2_a``), or numbers. Case does not make names differ, as on macOS
    and Windows. Names that are too long for the suffixes are shortened and end in a hash.
    """
    candidates = [
        [file.stem for file in files],
        [file.name for file in files],
        [f"{file.absolute().parent.name}_{file.stem}" for file in files],
    ]
    counts = [Counter(name.casefold() for name in names) for names in candidates]
    taken: set[str] = set()
    stems = []
    for names in zip(*candidates, strict=True):
        unique = (n for n, count in zip(names, counts, strict=True) if count[n.casefold()] == 1)
        chosen = stem = _shortened(next(unique, names[0]))
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = _shortened(f"{chosen}-{number}")
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _shortened(stem: str) -> str:
    encoded = os.fsencode(stem)
    if len(encoded) <= _LONGEST_STEM:
        return stem
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: _LONGEST_STEM - 9].decode(errors="ignore") + "-" + digest
