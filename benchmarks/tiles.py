"""What windows gain on large pictures: ``python benchmarks/tiles.py --root DATA``.

Scores mosaics of 2×2 and 3×3 photos of the set voc of ``training/evaluation/development.yaml``: pictures of
800×600 and 1200×900 pixels, in which things are a half and a third as large. A mosaic has exact labels, which
large pictures with small things rarely have. For comparison, every third photo of camvid and every other one
of voc itself, whose things are as large as the model expects.

Each row is a number of windows, and a share of the whole picture's logits in the mean. The last row is one
view at twice the model's input size, which has the pixels of four inputs.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from benchmarks.harness.results import ROOT, command_parser, store
from pixelclip_sdk import Segmenter
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.tiles import CONTEXT, View
from training.evaluation.datasets import Dataset
from training.evaluation.metrics import IGNORE_INDEX, Confusion
from training.evaluation.sets import load_sets

SETS = ROOT / "training" / "evaluation" / "development.yaml"
TILES = 1, 4, 9
CONTEXTS = 0.0, CONTEXT, 0.5
_PART = 300, 400  # Size (H, W) of a photo in a mosaic.

Pair = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def pairs(data: Dataset, step: int) -> Iterator[Pair]:
    """Yields every `step`-th photo of a data set, and its labels."""
    for i in range(0, len(data), step):
        yield data.pair(i)


def mosaics(data: Dataset, side: int) -> Iterator[Pair]:
    """Yields mosaics of `side` × `side` photos of a data set in a fixed random order, and their labels."""
    order = np.random.default_rng(0).permutation(len(data))
    for first in range(0, len(order) - side * side + 1, side * side):
        photo = np.empty((side * _PART[0], side * _PART[1], 3), np.uint8)
        truth = np.full(photo.shape[:2], IGNORE_INDEX, np.uint8)
        for place, i in enumerate(order[first : first + side * side]):
            row, column = divmod(place, side)
            part = np.s_[row * _PART[0] : (row + 1) * _PART[0], column * _PART[1] : (column + 1) * _PART[1]]
            image, labels = map(Image.fromarray, data.pair(int(i)))
            photo[part] = image.resize(_PART[::-1], Image.Resampling.BILINEAR)
            truth[part] = labels.resize(_PART[::-1], Image.Resampling.NEAREST)
        yield photo, truth


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, metavar="DATA", help="folder of the data sets")
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    options = parser.parse_args()
    sets = load_sets(SETS, options.root)
    cases = [
        ("voc, mosaics 3×3", sets["voc"], list(mosaics(sets["voc"], 3))),
        ("camvid", sets["camvid"], list(pairs(sets["camvid"], 3))),
        ("voc, mosaics 2×2", sets["voc"], list(mosaics(sets["voc"], 2))),
        ("voc", sets["voc"], list(pairs(sets["voc"], 2))),
    ]
    bundle = find_bundle(options.model)
    doubled = bundle.input.resized((2 * bundle.input.height, 2 * bundle.input.width))
    rows = []
    with (
        Segmenter.from_pretrained(bundle.path) as words,
        open_backend(bundle, "auto", "auto", None) as engine,
    ):
        for name, data, pictures in cases:
            text = words.embed({name: list(texts) for name, texts in data.classes.items()}).embeddings
            scores: dict[tuple[str, float], Confusion] = {}
            windows: dict[str, list[int]] = {}
            for photo, truth in tqdm(pictures, desc=name, disable=None):
                size = truth.shape[0], truth.shape[1]
                views = {f"{tiles} windows": View(size, bundle.input, tiles) for tiles in TILES}
                views["input doubled"] = View(size, doubled, 1)
                for label, view in views.items():
                    grids = list(engine.logits(np.stack(view.inputs(photo)), text))
                    windows.setdefault(label, []).append(max(len(view.windows), 1))
                    for context in CONTEXTS if view.windows else (1.0,):
                        labels = labels_upsampled(view.blend(grids, context), size, covered=view.covered)
                        score = Confusion.of(truth, labels, len(text))
                        key = label, context
                        scores[key] = scores[key] + score if key in scores else score
            for (label, context), score in scores.items():
                row = {"set": name, "pictures": len(pictures), "view": label, "context": context}
                row |= {"windows": float(np.mean(windows[label])), "miou": score.miou}
                rows.append(row | {"iou": score.to_json(list(data.classes))["iou"]})
                print(f"{name:<20} {label:<14} context {context:.1f}  {100 * score.miou:5.1f}", flush=True)
    files = {name: entry["sha256"] for name, entry in bundle.files.items()}
    store(options.json, {"files": files, "input": dataclasses.asdict(bundle.input), "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("tiles", main))
