"""File layouts and label ids of the public data sets, as they are distributed.

To add a data set, add its class list to `pixelclip_sdk/assets/classes` and its layout to `LAYOUTS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from training.evaluation.metrics import IGNORE_INDEX

__all__ = ["CONTEXT_COUNT", "CONTEXT_IDS", "LAYOUTS", "Layout", "label_ids"]


@dataclass(frozen=True)
class Layout:
    """Location of a data set's files below its root.

    Paths may contain ``{split}``; paths of labels also ``{stem}`` and ``{folder}`` of the photo.

    Attributes:
        split: The split that is scored by default.
        photos: Glob pattern of the photos, or with `listing` the path of the photo ``{stem}``.
        labels: Path of the label file of a photo.
        ids: Label id → class index or `IGNORE_INDEX`.
        listing: Text file with the stems of a split; empty to take all photos.
        suffix: Part of the photo's stem that the label's stem does not have.
        count: Number of photos in the default split.
        alternative: Path of the labels if the folder of `labels` does not exist.
    """

    split: str
    photos: str
    labels: str
    ids: Mapping[int, int]
    listing: str = ""
    suffix: str = ""
    count: int | None = None
    alternative: str = ""


def label_ids(ids: list[int], ignored: set[int]) -> dict[int, int]:
    """Maps label ids to class indices, in the given order, and ignored ids to `IGNORE_INDEX`."""
    return {**dict.fromkeys(ignored, IGNORE_INDEX), **{label: i for i, label in enumerate(ids)}}


# COCO numbers its things 1-91 and uses 80 of these ids; stuff follows up to 182. The label files have id - 1.
_COCO_GAPS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}
_COCO_IDS = [i for i in range(182) if i not in _COCO_GAPS]
# Ids of the 19 evaluated Cityscapes classes, in the order of the train ids.
_CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
# The 59 of Pascal Context's 459 ids, in the order of the class list (397 is "table").
_CONTEXT_IDS = [
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144),
    *(158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354),
    *(355, 360, 366, 368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
]

LAYOUTS = {
    # images/val2017 and the "stuffthingmaps" annotations
    "coco-stuff-171": Layout(
        split="val2017",
        count=5000,
        photos="images/{split}/*.jpg",
        labels="annotations/{split}/{stem}.png",
        ids=label_ids(_COCO_IDS, {255}),
    ),
    # ADEChallengeData2016; 0 is "other"
    "ade20k-150": Layout(
        split="validation",
        count=2000,
        photos="images/{split}/*.jpg",
        labels="annotations/{split}/{stem}.png",
        ids=label_ids(list(range(1, 151)), {0}),
    ),
    # leftImg8bit and gtFine, with *_labelIds.png
    "cityscapes-19": Layout(
        split="val",
        count=500,
        photos="leftImg8bit/{split}/*/*_leftImg8bit.png",
        labels="gtFine/{split}/{folder}/{stem}_gtFine_labelIds.png",
        ids=label_ids(_CITYSCAPES_IDS, set(range(34)) - set(_CITYSCAPES_IDS)),
        suffix="_leftImg8bit",
    ),
    # VOC2012; 0 is the background, 255 the border of objects
    "voc-20": Layout(
        split="val",
        count=1449,
        photos="JPEGImages/{stem}.jpg",
        labels="SegmentationClassAug/{stem}.png",
        alternative="SegmentationClass/{stem}.png",
        ids=label_ids(list(range(1, 21)), {0, 255}),
        listing="ImageSets/Segmentation/{split}.txt",
    ),
    # the copy of the SegNet tutorial; 11 is "void"
    "camvid-11": Layout(
        split="val",
        count=101,
        photos="{split}/images/*",
        labels="{split}/labels/{stem}.png",
        ids=label_ids(list(range(11)), {11}),
    ),
}
CONTEXT_COUNT = 5105
"""Number of photos in Pascal Context's split ``val``."""
CONTEXT_IDS = label_ids(_CONTEXT_IDS, set(range(460)) - set(_CONTEXT_IDS))
"""Pascal Context's label id → class index or `IGNORE_INDEX`; 0 is unlabelled."""
