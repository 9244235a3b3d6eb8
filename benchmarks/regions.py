"""Regions of a label map against scipy's components: ``python benchmarks/regions.py PHOTO…``.

Label maps of real photos at several sizes. Ours is the whole of `Segmentation.regions`, with areas, boxes
and centroids. The reference is ``scipy.ndimage.label`` once for each class that is there, without measures.
Both run in turns; times are medians over all photos. First the number of components is compared.
"""

import functools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks.harness import tables
from benchmarks.harness.photos import PHOTOS
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns
from pixelclip_sdk import PixelClipError, Segmentation, Segmenter
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.words.classes import class_list

_PHOTOS_PER_FOLDER = 5
# Classes, height, width.
_CASES = ((20, 1080, 1920), (150, 1080, 1920), (20, 480, 640), (150, 2160, 3840))


def reference_count(labels: np.ndarray) -> int:
    """Returns the number of components of `(H, W)` labels by scipy, one class after the other."""
    return sum(ndimage.label(labels == label)[1] for label in np.unique(labels))


def compare(results: Sequence[Segmentation], runs: int) -> dict[str, Any]:
    """Returns median times, their ratio and the mean number of regions.

    Raises PixelClipError if the numbers of components differ.
    """
    samples: dict[str, list[float]] = {"ours": [], "scipy": []}
    counts = []
    for result in results:
        found, expected = len(result.regions(min_area=0)), reference_count(result.labels)
        if found != expected:
            raise PixelClipError(f"there are {found} regions; expected {expected}, as scipy counts")
        counts.append(len(result.regions()))
        contenders = {
            "ours": result.regions,
            "scipy": functools.partial(reference_count, result.labels),
        }
        for name, values in in_turns(contenders, runs, warmup=1, slow_s=0.5).items():
            samples[name] += values
    ours, reference = (statistics.median(values) for values in samples.values())
    return {
        "ours_ms": ours,
        "scipy_ms": reference,
        "ratio": reference / ours,
        "regions": statistics.mean(counts),
    }


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, runs=5)
    about = f"image files or folders; the first {_PHOTOS_PER_FOLDER} of a folder (default: examples/photos)"
    parser.add_argument("photos", type=Path, nargs="*", default=[PHOTOS], help=about)
    options = parser.parse_args()
    photos = []
    for path in options.photos:
        photos += find_images(path)[:_PHOTOS_PER_FOLDER] if path.is_dir() else [path]
    images = [Image.fromarray(load_image(photo)) for photo in photos]
    cases, ratios = [], {}
    with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
        names = segmenter.set_classes(class_list("common-150")).names
        for count, height, width in _CASES:
            segmenter.set_classes(names[:count])
            results = [segmenter.predict(image.resize((width, height))) for image in images]
            row = compare(results, options.runs)
            cases.append({"classes": count, "size": [height, width], **row})
            ratios[f"{count} classes, {width}×{height}: speed against scipy"] = row["ratio"]
    content = {"photos": len(photos), "cases": cases, "ratios": ratios}
    print(f"{len(photos)} photos\n\n{tables.regions(content)}")
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("regions", main))
