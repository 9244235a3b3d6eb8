"""Accuracy of a segmenter: mean IoU on CamVid and the photo test."""

from pathlib import Path

from benchmarks.photo_test import photo_test
from pixelclip_sdk import Segmenter
from training.evaluation.datasets import load_dataset
from training.evaluation.metrics import Confusion

_CLASSES = "camvid-11"


def accuracies(segmenter: Segmenter, *, camvid: Path | None, photos: Path | None) -> dict[str, float]:
    """Returns ``miou`` on CamVid val and ``photo_test``, each 0–1, for the folders that are given.

    Photos are named after their content; see `benchmarks.photo_test`. The segmenter keeps its classes.
    """
    before, scores = segmenter.vocabulary, {}
    if camvid:
        data = load_dataset(_CLASSES, camvid)
        segmenter.set_classes(_CLASSES)
        confusion = Confusion.empty(len(data.classes))
        for index, photo in enumerate(data.photos):
            labels = segmenter.predict(photo).labels
            confusion += Confusion.of(data.truth(index), labels, len(data.classes))
        scores["miou"] = confusion.miou
    if photos:
        scores["photo_test"] = photo_test(segmenter, photos).largest
    segmenter.set_classes(before)
    return scores
