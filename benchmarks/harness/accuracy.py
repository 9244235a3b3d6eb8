"""Accuracy of a segmenter: mean IoU on CamVid and the photo test."""

from pathlib import Path

from benchmarks.photo_test import photo_test
from pixelclip_sdk import Segmenter
from training.evaluation.datasets import load_dataset
from training.evaluation.metrics import Confusion

__all__ = ["accuracies", "camvid_miou"]

_CLASSES = "camvid-11"


def camvid_miou(segmenter: Segmenter, root: Path) -> float:
    """Mean IoU on CamVid val, 0–1. Every photo is segmented whole, as by `predict`.

    Args:
        segmenter: The model; its classes are replaced.
        root: CamVid's folder; see docs/evaluation.md.

    Raises:
        DatasetError: There are no photos, or a photo has no labels.
    """
    data = load_dataset(_CLASSES, root)
    segmenter.set_classes(_CLASSES)
    confusion = Confusion.empty(len(data.classes))
    for index, photo in enumerate(data.photos):
        confusion += Confusion.of(data.truth(index), segmenter.predict(photo).labels, len(data.classes))
    return confusion.miou


def accuracies(segmenter: Segmenter, *, camvid: Path | None, photos: Path | None) -> dict[str, float]:
    """Returns ``miou`` on CamVid and ``photo_test``, each 0–1, for the folders that are given.

    Args:
        segmenter: The model; its classes are restored at the end.
        camvid: CamVid's folder, or None.
        photos: Photos named after their content, see `benchmarks.photo_test`, or None.
    """
    before, scores = segmenter.vocabulary, {}
    if camvid:
        scores["miou"] = camvid_miou(segmenter, camvid)
    if photos:
        scores["photo_test"] = photo_test(segmenter, photos).largest
    segmenter.set_classes(before)
    return scores
