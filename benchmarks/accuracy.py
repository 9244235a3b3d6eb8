"""What a segmenter finds: mean IoU on CamVid, and the photo test."""

from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photo_test import photo_test
from pixelclip_sdk import Segmenter
from pixelclip_sdk.classes import class_list

__all__ = ["accuracies", "camvid_miou"]

_CLASSES = "camvid-11"


def camvid_miou(segmenter: Segmenter, root: Path) -> float:
    """Mean IoU on CamVid's val photos, each segmented whole, as `predict` does; see training/evaluate.py.

    Args:
        segmenter: A model that knows the list ``camvid-11``; its classes are replaced.
        root: CamVid's folder; see docs/evaluation.md.

    Raises:
        SystemExit: There are no photos, or one without labels.
    """
    photos = sorted((root / "val" / "images").glob("*.*"))
    if not photos:
        raise SystemExit(f"{root} has no val/images; expected CamVid, see docs/evaluation.md")
    segmenter.set_classes(_CLASSES)
    count = len(class_list(_CLASSES))
    confusion = np.zeros((count, count), np.int64)
    for photo in photos:
        file = root / "val" / "labels" / f"{photo.stem}.png"
        if not file.is_file():
            raise SystemExit(f"{photo} has no labels; expected {file}")
        with Image.open(file) as image:
            truth = np.asarray(image)
        scored = truth < count  # What is beyond is ignored.
        pairs = truth[scored].astype(np.intp) * count + segmenter.predict(photo).labels[scored]
        confusion += np.bincount(pairs, minlength=count * count).reshape(count, count)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    return float((confusion.diagonal() / np.maximum(union, 1))[union > 0].mean())


def accuracies(segmenter: Segmenter, *, camvid: Path | None, photos: Path | None) -> dict[str, float]:
    """``miou`` on CamVid and ``photo_test``, the share of photos whose own name wins, where there are photos.

    Args:
        segmenter: The model; afterwards it has the classes that it had.
        camvid: CamVid's folder, or None.
        photos: Photos named after what they show; see `benchmarks.photo_test`. None for no such test.
    """
    before, found = segmenter.vocabulary, {}
    if camvid:
        found["miou"] = camvid_miou(segmenter, camvid)
    if photos:
        found["photo_test"] = photo_test(segmenter, photos).largest
    segmenter.set_classes(before)
    return found
