"""Where the files of labelled sets are, and what the ids in them mean."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.evaluation.metrics import IGNORED

__all__ = ["CONTEXT_COUNT", "CONTEXT_IDS", "LAYOUTS", "Layout", "numbered"]


@dataclass(frozen=True)
class Layout:
    """Where a set's files are; ``{split}``, and for labels ``{stem}`` and ``{folder}`` of the photo.

    Attributes:
        split: What is scored by default.
        photos: Pattern of the photos below the root, or with `listing` the file of each ``{stem}``.
        labels: The photo's label file below the root.
        ids: See `Dataset`.
        listing: A file of stems, one a line; empty to take all photos.
        suffix: What the photos' stems have more than those of the labels.
        count: Photos that the whole `split` has.
        instead: Labels where the folder of `labels` is not there.
    """

    split: str
    photos: str
    labels: str
    ids: Mapping[int, int]
    listing: str = ""
    suffix: str = ""
    count: int | None = None
    instead: str = ""


# COCO has 91 ids of things, 80 of them in use; with stuff the ids run to 182. In the files they begin at 0.
_COCO_GAPS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_COCO_IDS = [i for i in range(182) if i not in _COCO_GAPS]
# Cityscapes: ids of the 19 classes in the order of their train ids.
_CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
# Pascal Context: ids among the 459, in the order of `pascal-context-59` (397 is "table").
_CONTEXT_IDS = [
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144),
    *(158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354),
    *(355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
]


def numbered(ids: list[int], ignored: set[int]) -> dict[int, int]:
    """Label ids in class order, and those that do not score → class or `IGNORED`."""
    return {**dict.fromkeys(ignored, IGNORED), **{label: i for i, label in enumerate(ids)}}


LAYOUTS = {
    "coco-stuff-171": Layout(
        split="val2017",
        count=5000,
        photos="images/{split}/*.jpg",
        labels="annotations/{split}/{stem}.png",
        ids=numbered(_COCO_IDS, {255}),
    ),
    "ade20k-150": Layout(
        split="validation",
        count=2000,
        photos="images/{split}/*.jpg",
        labels="annotations/{split}/{stem}.png",
        ids=numbered(list(range(1, 151)), {0}),
    ),
    "cityscapes-19": Layout(
        split="val",
        count=500,
        photos="leftImg8bit/{split}/*/*_leftImg8bit.png",
        labels="gtFine/{split}/{folder}/{stem}_gtFine_labelIds.png",
        ids=numbered(_CITYSCAPES_IDS, set(range(34)) - set(_CITYSCAPES_IDS)),
        suffix="_leftImg8bit",
    ),
    "voc-20": Layout(
        split="val",
        count=1449,
        photos="JPEGImages/{stem}.jpg",
        labels="SegmentationClassAug/{stem}.png",
        instead="SegmentationClass/{stem}.png",
        ids=numbered(list(range(1, 21)), {0, 255}),
        listing="ImageSets/Segmentation/{split}.txt",
    ),
    "camvid-11": Layout(
        split="val",
        count=101,
        photos="{split}/images/*",
        labels="{split}/labels/{stem}.png",
        ids=numbered(list(range(11)), {11}),
    ),
}
CONTEXT_COUNT = 5105
"""Photos of Pascal Context's part ``val``."""
CONTEXT_IDS = numbered(_CONTEXT_IDS, set(range(460)) - set(_CONTEXT_IDS))
