"""mIoU on photos with label maps: ``python benchmarks/labelled_test.py camvid/val --classes camvid-11``.

The folder holds ``images/`` and ``labels/`` with files of the same stem; a label file's pixel values are
positions in the list of classes, every other value is ignored. One confusion matrix over the whole set, at
the labels' resolution; the mean is over classes that occur. Labels score; nothing learns from them.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pixelclip_sdk import Segmenter
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.vocabulary import read_classes


def confusion(segmenter: Segmenter, folder: Path) -> np.ndarray:
    """Confusion matrix `(K, K)` of pixel counts: row the true class, column the predicted one."""
    count = len(segmenter.vocabulary)
    total = np.zeros((count, count), np.int64)
    images = sorted((folder / "images").iterdir())
    labels = {path.stem: path for path in (folder / "labels").iterdir()}
    if not images or any(image.stem not in labels for image in images):
        raise SystemExit(f"{folder}: expected images/ and labels/ with files of the same stem")
    for image in images:
        with Image.open(labels[image.stem]) as file:
            truth = np.asarray(file)
        predicted = segmenter.predict(image).labels
        if truth.shape != predicted.shape:
            raise SystemExit(
                f"{image.name} is {predicted.shape}, its labels are {truth.shape}; expected equal sizes"
            )
        known = truth < count
        pairs = truth[known].astype(np.int64) * count + predicted[known]
        total += np.bincount(pairs, minlength=count * count).reshape(count, count)
    return total


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class `(K,)`; NaN for classes that never occur in the truth."""
    hits = np.diag(matrix).astype(float)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.where(matrix.sum(axis=1) > 0, hits / np.maximum(union, 1), np.nan)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="with images/ and labels/")
    parser.add_argument("--classes", required=True, help="names in label order, as in `pixelclip predict`")
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    options = parser.parse_args()
    with Segmenter.from_pretrained(options.model, classes=read_classes(options.classes)) as segmenter:
        matrix = confusion(segmenter, options.folder)
        vocabulary = segmenter.vocabulary
    ious = class_ious(matrix)
    templates = list(vocabulary.templates)
    print(f"{options.model} on {options.folder}, {len(vocabulary)} classes, templates {templates}")
    for name, iou in zip(vocabulary.names, ious, strict=True):
        print(f"{name:<20}{iou:7.1%}")
    print(f"{'mIoU':<20}{np.nanmean(ious):7.1%}")
    print(f"{'pixel accuracy':<20}{np.trace(matrix) / matrix.sum():7.1%}")
    if options.json:
        content = {
            "miou": float(np.nanmean(ious)),
            "iou": dict(zip(vocabulary.names, ious.tolist(), strict=True)),
            "synonyms": {name: list(texts) for name, texts in vocabulary.synonyms.items()},
            "templates": templates,
            "confusion": matrix.tolist(),
            "environment": environment(),
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
