"""Our postprocess against PyTorch's: ``python benchmarks/postprocess.py PHOTO…``.

Real logits of real photos, from 64×64 grids as the official protocol has them, to labels at the picture's
size: `labels_upsampled` beside ``interpolate`` then ``argmax``, in turns in one run, warm, medians. Also
the share of equal labels (others have to be ties) and our peak memory beyond the result.
"""

import argparse
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

from benchmarks.harness.stored import store
from benchmarks.harness.turns import in_turns
from pixelclip_sdk import Segmenter
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.classes import class_list

_ROOT = Path(__file__).resolve().parents[1]
_GRID = 64
_OF_A_FOLDER = 5
_TIE = 1e-6  # cosines whose difference is rounding
# Classes, height, width.
_CASES = ((150, 1080, 1920), (20, 480, 640), (20, 1080, 1920), (150, 480, 640))


def grid_logits(segmenter: Segmenter, photo: Path) -> np.ndarray:
    """Logits `(K, 64, 64)`: the model's features, interpolated, normalised, compared (official protocol)."""
    features = torch.from_numpy(segmenter.features(photo)).permute(2, 0, 1)[None]
    fine = F.normalize(F.interpolate(features, (_GRID, _GRID), mode="bilinear")[0], dim=0)
    return np.einsum("dhw,kd->khw", fine.numpy(), segmenter.vocabulary.embeddings, optimize=True)


def textbook(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the official code does after the encoder."""
    return interpolated(logits, size).argmax(0).numpy()


def interpolated(logits: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Logits `(K, H, W)` of every pixel."""
    return F.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear")[0]


def ties(logits: np.ndarray, labels: np.ndarray, expected: np.ndarray) -> int:
    """Number of pixels that have different labels: places where two logits are the same but for rounding.

    Raises:
        SystemExit: At one of them the two logits differ by more than that: the labels are wrong.
    """
    rows, columns = np.nonzero(labels != expected)
    if len(rows):
        values = interpolated(logits, labels.shape).numpy()
        one, other = (values[which[rows, columns], rows, columns] for which in (labels, expected))
        worst = float(np.abs(one - other).max())
        if worst > _TIE:
            raise SystemExit(
                f"{len(rows)} labels differ from PyTorch's, one of them where logits are {worst:.2g} apart; "
                f"expected at most {_TIE}: the labels are wrong"
            )
    return len(rows)


def compare(logits: Sequence[np.ndarray], size: tuple[int, int], runs: int) -> dict[str, Any]:
    """Median times in turns, their ratio, labels that differ (ties), our peak memory beyond the result."""
    ours, theirs, differing, peaks = [], [], [], []
    for grid in logits:
        tracemalloc.start()
        labels = labels_upsampled(grid, size)
        peaks.append((tracemalloc.get_traced_memory()[1] - labels.nbytes) / 1e6)
        tracemalloc.stop()
        differing.append(ties(grid, labels, textbook(grid, size)))
        turns = {
            "ours": functools.partial(labels_upsampled, grid, size),
            "theirs": functools.partial(textbook, grid, size),
        }
        samples = in_turns(turns, runs, warmup=1)
        ours += samples["ours"]
        theirs += samples["theirs"]
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "ours_ms": a,
        "torch_ms": b,
        "ratio": b / a,
        "equal_labels": 1 - max(differing) / (size[0] * size[1]),
        "ties": sum(differing),
        "peak_mb": max(peaks),
    }


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "photos",
        type=Path,
        nargs="*",
        help="image files or folders, of which the first five (default: examples/)",
    )
    parser.add_argument(
        "--runs", type=positive, default=5, help="runs a photo and case (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    photos = []
    for path in options.photos or [_ROOT / "examples" / "photos"]:
        photos += sorted(path.glob("*.jpg"))[:_OF_A_FOLDER] if path.is_dir() else [path]
    if not photos:
        parser.error(f"no photos in {options.photos}; expected JPEG files")
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
        store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("postprocess", main))
