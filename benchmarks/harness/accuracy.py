"""What a segmenter finds: mean IoU on CamVid, and the photo test."""

from pathlib import Path

from benchmarks.photo_test import photo_test
from pixelclip_sdk import Segmenter
from training.evaluation.datasets import load_dataset
from training.evaluation.metrics import Confusion

__all__ = ["accuracies", "camvid_miou"]

_CLASSES = "camvid-11"


def camvid_miou(segmenter: Segmenter, root: Path) -> float:
    """Mean IoU on CamVid's val photos, each segmented whole, as `predict` does; see training/evaluate.py.

    Args:
        segmenter: A model that knows the list ``camvid-11``; its classes are replaced.
        root: CamVid's folder; see docs/evaluation.md.

    Raises:
        DatasetError: There are no photos, or one without labels.
    """
    data = load_dataset(_CLASSES, root)
    segmenter.set_classes(_CLASSES)
    confusion = Confusion.empty(len(data.classes))
    for index, photo in enumerate(data.photos):
        confusion += Confusion.of(data.truth(index), segmenter.predict(photo).labels, len(data.classes))
    return confusion.miou


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
