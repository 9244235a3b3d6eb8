"""Our postprocess against PyTorch's: ``python benchmarks/postprocess.py PHOTO…``.

Real logits of real photos, from 64×64 grids as the official protocol has them, to labels at the picture's
size: `labels_upsampled` beside ``interpolate`` then ``argmax``, in turns in one run, warm, medians. Also
the share of equal labels and our peak memory beyond the result.
"""

import argparse
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from pixelclip_sdk import Segmenter
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.classes import class_list
from pixelclip_sdk.postprocess import labels_upsampled

_ROOT = Path(__file__).resolve().parents[1]
_GRID = 64
# Classes, height, width.
_CASES = ((150, 1080, 1920), (20, 480, 640), (20, 1080, 1920), (150, 480, 640))


def grid_logits(segmenter: Segmenter, photo: Path) -> np.ndarray:
    """Logits `(K, 64, 64)`: the model's features, interpolated, normalised, compared (official protocol)."""
    features = torch.from_numpy(segmenter.features(photo)).permute(2, 0, 1)[None]
    fine = F.normalize(F.interpolate(features, (_GRID, _GRID), mode="bilinear")[0], dim=0)
    return np.einsum("dhw,kd->khw", fine.numpy(), segmenter.vocabulary.embeddings, optimize=True)


def textbook(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the official code does after the encoder."""
    return F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear")[0].argmax(0).numpy()


def milliseconds(function: Callable[[], object]) -> float:
    """One call's time."""
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def compare(logits: Sequence[np.ndarray], size: tuple[int, int], runs: int) -> dict[str, Any]:
    """Median times, their ratio, the least share of equal labels, our peak memory beyond the result."""
    ours, theirs, equal, peaks = [], [], [], []
    for grid in logits:
        expected = textbook(grid, size)
        tracemalloc.start()
        labels = labels_upsampled(grid, size)
        peaks.append((tracemalloc.get_traced_memory()[1] - labels.nbytes) / 1e6)
        tracemalloc.stop()
        equal.append(float((labels == expected).mean()))
        for _ in range(runs):
            ours.append(milliseconds(lambda grid=grid: labels_upsampled(grid, size)))
            theirs.append(milliseconds(lambda grid=grid: textbook(grid, size)))
    a, b = statistics.median(ours), statistics.median(theirs)
    return {"ours_ms": a, "torch_ms": b, "ratio": b / a, "equal_labels": min(equal), "peak_mb": max(peaks)}


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, nargs="*", help="image files (default: those of examples/)")
    parser.add_argument("--runs", type=int, default=5, help="runs a photo and case (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    photos = options.photos or sorted((_ROOT / "examples" / "photos").glob("*.jpg"))
    classes = class_list("common-150")
    torch.set_num_threads(default_threads())
    results = []
    print(
        f"{len(photos)} photos, {_GRID}×{_GRID} grid, torch {torch.__version__}, {default_threads()} threads"
    )
    print("classes    picture      ours      torch   ratio      equal  peak memory")
    with Segmenter.from_pretrained("pixelclip-lite") as segmenter:
        names = segmenter.set_classes(classes).names
        for count, height, width in _CASES:
            segmenter.set_classes(names[:count])
            logits = [grid_logits(segmenter, photo) for photo in photos]
            row = compare(logits, (height, width), options.runs)
            results.append({"classes": count, "size": [height, width], **row})
            print(
                f"{count:>7} {f'{width}×{height}':>10} {row['ours_ms']:>6.1f} ms {row['torch_ms']:>7.1f} ms "
                f"{row['ratio']:>6.1f}× {row['equal_labels']:>10.5%} {row['peak_mb']:>9.1f} MB"
            )
    if options.json:
        facts = {**environment(), "torch": torch.__version__}
        ratios = {
            "{} classes, {}×{}: speed against PyTorch".format(row["classes"], *row["size"][::-1]): row[
                "ratio"
            ]
            for row in results
        }
        content = {
            "photos": len(photos),
            "grid": _GRID,
            "cases": results,
            "ratios": ratios,
            "environment": facts,
        }
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
