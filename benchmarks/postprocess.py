"""Our postprocessing against PyTorch's: ``python benchmarks/postprocess.py PHOTO…``.

Real logits of photos on 64×64 grids, as in the official protocol, to labels at the photo's size:
`labels_upsampled` against ``interpolate`` and ``argmax``. Both run in turns; times are medians. Also reports
the share of equal labels and our peak memory beyond the result. Labels may differ at ties only.
"""

import functools
import statistics
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.harness import tables
from benchmarks.harness.photos import PHOTOS
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns
from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.words.classes import class_list

_GRID = 64
_PHOTOS_PER_FOLDER = 5
_TIE = 1e-6  # Largest difference of two logits that rounding explains.
# Classes, height, width.
_CASES = ((150, 1080, 1920), (20, 480, 640), (20, 1080, 1920), (150, 480, 640))


def grid_logits(segmenter: Segmenter, photo: Path) -> np.ndarray:
    """Returns logits `(K, 64, 64)` float32 as in the official protocol: interpolate, normalise, compare."""
    features = torch.from_numpy(segmenter.features(photo)).permute(2, 0, 1)[None]
    fine = F.normalize(F.interpolate(features, (_GRID, _GRID), mode="bilinear")[0], dim=0)
    return np.einsum("dhw,kd->khw", fine.numpy(), segmenter.vocabulary.embeddings, optimize=True)


def interpolated(logits: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Returns logits `(K, H, W)` of every pixel."""
    return F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear")[0]


def reference_labels(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns labels `(H, W)` by the official code's method."""
    return interpolated(logits, size).argmax(0).numpy()


def ties(logits: np.ndarray, labels: np.ndarray, expected: np.ndarray) -> int:
    """Returns the number of pixels with different labels.

    Raises PixelClipError if the logits of two such labels differ by more than rounding.
    """
    rows, columns = np.nonzero(labels != expected)
    if len(rows):
        values = interpolated(logits, labels.shape).numpy()
        one, other = (values[which[rows, columns], rows, columns] for which in (labels, expected))
        worst = float(np.abs(one - other).max())
        if worst > _TIE:
            raise PixelClipError(
                f"the labels are wrong: {len(rows)} pixels differ from PyTorch's, with logits up to "
                f"{worst:.2g} apart; expected at most {_TIE}"
            )
    return len(rows)


def compare(logits: Sequence[np.ndarray], size: tuple[int, int], runs: int) -> dict[str, Any]:
    """Returns median times, their ratio, equal labels, and our peak memory beyond the result.

    Logits are `(K, 64, 64)` float32 of each photo; `size` is that of the labels, `(H, W)`.
    """
    samples: dict[str, list[float]] = {"ours": [], "torch": []}
    differing, peaks = [], []
    for grid in logits:
        tracemalloc.start()
        labels = labels_upsampled(grid, size)
        peaks.append((tracemalloc.get_traced_memory()[1] - labels.nbytes) / 1e6)
        tracemalloc.stop()
        differing.append(ties(grid, labels, reference_labels(grid, size)))
        contenders = {
            "ours": functools.partial(labels_upsampled, grid, size),
            "torch": functools.partial(reference_labels, grid, size),
        }
        for name, values in in_turns(contenders, runs, warmup=1).items():
            samples[name] += values
    ours, reference = (statistics.median(values) for values in samples.values())
    return {
        "ours_ms": ours,
        "torch_ms": reference,
        "ratio": reference / ours,
        "equal_labels": 1 - max(differing) / (size[0] * size[1]),
        "ties": sum(differing),
        "peak_mb": max(peaks),
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
    torch.set_num_threads(default_threads())
    cases, ratios = [], {}
    with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
        names = segmenter.set_classes(class_list("common-150")).names
        for count, height, width in _CASES:
            segmenter.set_classes(names[:count])
            logits = [grid_logits(segmenter, photo) for photo in photos]
            row = compare(logits, (height, width), options.runs)
            cases.append({"classes": count, "size": [height, width], **row})
            ratios[f"{count} classes, {width}×{height}: speed against PyTorch"] = row["ratio"]
    content = {"photos": len(photos), "grid": _GRID, "cases": cases, "ratios": ratios}
    print(f"{len(photos)} photos, {_GRID}×{_GRID} grid\n\n{tables.postprocess(content)}")
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("postprocess", main))
