"""Time of labels along the photo's edges, against interpolated ones: ``python benchmarks/refine.py PHOTO…``.

`refine_edges` and `labels_upsampled` run in turns on the logits of pixelclip-lite. Each uses one thread, and
times are medians of that thread's CPU time over all photos, which are resized. Peak memory is that beyond the
labels.
"""

import functools
import statistics
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import tables
from benchmarks.harness.photos import PHOTOS
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns
from pixelclip_sdk import Segmenter
from pixelclip_sdk.image import load_image
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.refine import refine_edges
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.words.classes import class_list

# Classes, height, width.
_CASES = ((20, 480, 640), (150, 480, 640), (20, 1080, 1920), (20, 2160, 3840))


def compare(pictures: Sequence[tuple[np.ndarray, np.ndarray]], runs: int) -> dict[str, float]:
    """Returns median times, their ratio, and the peak memory.

    Each picture is logits `(K, h, w)` and the photo, `(H, W, 3)` uint8.
    """
    samples: dict[str, list[float]] = {"edges": [], "off": []}
    peaks = []
    for logits, photo in pictures:
        tracemalloc.start()
        labels, _ = refine_edges(logits, photo)
        peaks.append((tracemalloc.get_traced_memory()[1] - labels.nbytes) / 1e6)
        tracemalloc.stop()
        contenders = {
            "edges": functools.partial(refine_edges, logits, photo),
            "off": functools.partial(labels_upsampled, logits, photo.shape[:2]),
        }
        for name, values in in_turns(contenders, runs, warmup=1, clock=time.thread_time).items():
            samples[name] += values
    edges, off = (statistics.median(values) for values in samples.values())
    return {"edges_ms": edges, "off_ms": off, "time_ratio": edges / off, "peak_mb": max(peaks)}


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, runs=20)
    about = "image files or folders (default: examples/photos)"
    parser.add_argument("photos", type=Path, nargs="*", default=[PHOTOS], help=about)
    options = parser.parse_args()
    photos: list[Path] = []
    for path in options.photos:
        photos += find_images(path) if path.is_dir() else [path]
    cases: list[dict[str, Any]] = []
    with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
        names = segmenter.set_classes(class_list("common-150")).names
        for count, height, width in _CASES:
            segmenter.set_classes(names[:count])
            resized = [
                np.asarray(Image.fromarray(load_image(photo)).resize((width, height))) for photo in photos
            ]
            pictures = [(segmenter.predict(image).logits, image) for image in resized]
            cases.append({"classes": count, "size": [height, width], **compare(pictures, options.runs)})
    ratios = {
        f"{case['classes']} classes, {tables.size_text(case['size'])}: interpolation over refinement": (
            1 / case["time_ratio"]
        )
        for case in cases
    }
    content = {"photos": len(photos), "cases": cases, "ratios": ratios}
    print(f"{len(photos)} photos\n\n{tables.refinement(content)}")
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("refine", main))
