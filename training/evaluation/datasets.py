"""Labelled photo sets as their owners give them out, with the label conventions of the official evaluation.

====================  ====================================================================================
``coco-stuff-171``    ``images/val2017``, ``annotations/val2017`` (stuffthingmaps): COCO ids less one with
                      their gaps, 255 ignored
``ade20k-150``        ADEChallengeData2016: 0 is "other" and ignored, 1-150 are the classes
``pascal-context-59``  VOC2010 with ``trainval_merged.json``: the 59 of 459 ids; others, unlabelled ignored
``cityscapes-19``     ``leftImg8bit``, ``gtFine``: ``*_labelIds.png``, 19 of 34 ids; the others ignored
``voc-20``            VOC2012 with ``SegmentationClassAug``, without it ``SegmentationClass``: 0 (background)
                      and 255 (border) ignored
``camvid-11``         ``SPLIT/images``, ``SPLIT/labels``: 0-10, 11 ignored
``folder``            ``images``, ``labels`` of anybody's: 0 to K-1, 255 ignored
====================  ====================================================================================

Label files are read as they are: nothing has to be converted beforehand. An id that a set does not have is an
error, since it means that the file is of another set or was converted.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.images import open_image_file
from pixelclip_sdk.words.classes import Classes, class_list, parse_classes
from training.evaluation.layouts import CONTEXT_COUNT, CONTEXT_IDS, LAYOUTS, Layout, numbered
from training.masks.rle import decode_mask

__all__ = ["DATASETS", "Dataset", "DatasetError", "load_dataset"]

_log = logging.getLogger(__name__)

_CONTEXT_FILE = "trainval_merged.json"
_MAX_CLASSES = 255  # labels are uint8, and one value is for ignored pixels


class DatasetError(PixelClipError):
    """A labelled set is not laid out as expected, or a file of it is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Photos with the class of every pixel.

    Attributes:
        name: One of `DATASETS`.
        split: As the set calls it.
        classes: Name → synonyms, in label order.
        photos: The photos' files.
        labels: What `truth` reads, one a photo: a file, or Pascal Context's codes.
        ids: Id in the label files → class, or `IGNORED`.
        label_files: Where the labels are below the root.
        expected: Photos that the split has as it is given out; None where that is not known.
    """

    name: str
    split: str
    classes: Mapping[str, tuple[str, ...]]
    photos: tuple[Path, ...]
    labels: tuple[Path | _Codes, ...]
    ids: Mapping[int, int]
    label_files: str
    expected: int | None = None

    def __len__(self) -> int:
        return len(self.photos)

    def truth(self, index: int) -> npt.NDArray[np.uint8]:
        """The classes of one photo's pixels: `[H, W]`, `IGNORED` where none is scored.

        Raises:
            DatasetError: The file is missing, damaged, no label map, or has ids that the set does not have.
        """
        label = self.labels[index]
        raw = _read_ids(label) if isinstance(label, Path) else label.decode()
        # One more at the end for all that is too large. Ids are not negative: files are of unsigned pixels.
        table = np.full(max(self.ids) + 2, -1, np.int16)
        table[list(self.ids)] = list(self.ids.values())
        classes = table[np.minimum(raw.astype(np.int64), len(table) - 1)]
        if (wrong := classes < 0).any():
            found = ", ".join(map(str, np.unique(raw[wrong])[:10]))
            name = label if isinstance(label, Path) else label.name
            raise DatasetError(
                f"{name} has the label ids {found}; {self.name} has {_ranges(self.ids)}. "
                "Is the file of another set, or was it converted? Expected the labels as they are given out."
            )
        return classes.astype(np.uint8)

    def pair(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """One photo, `[H, W, 3]` RGB, and its `truth`.

        Raises:
            ImageError: The photo cannot be read.
            DatasetError: See `truth`; or their sizes differ.
        """
        photo, truth = load_image(self.photos[index]), self.truth(index)
        if truth.shape != photo.shape[:2]:
            raise DatasetError(
                f"{self.photos[index]} is {photo.shape[:2]}, its labels are {truth.shape}; "
                "expected equal sizes"
            )
        return photo, truth


DATASETS = (*sorted([*LAYOUTS, "pascal-context-59"]), "folder")
"""Names that `load_dataset` knows."""


def load_dataset(
    name: str, root: Path, *, split: str | None = None, classes: Classes | None = None
) -> Dataset:
    """Finds the files of a set; reads none but lists. Fewer photos than the set has are said in the log.

    Args:
        name: One of `DATASETS`.
        root: Where the set lies: the folder that the layout in this module's head begins in.
        split: As the set calls it; None for the one that is usually scored. ``folder`` has none.
        classes: Other names for the classes, in the same order; needed for ``folder``.

    Raises:
        DatasetError: Files are missing, or the number of classes is another.
        VocabularyError: The classes cannot be used.
    """
    if name not in DATASETS:
        raise DatasetError(f"no set {name!r}; expected one of {', '.join(DATASETS)}")
    if name == "folder":
        if classes is None:
            raise DatasetError("a folder needs the names of its classes, in label order")
        words = parse_classes(classes)
        if len(words) > _MAX_CLASSES:
            raise DatasetError(f"{len(words)} classes; expected at most {_MAX_CLASSES}")
        ids = numbered(list(range(len(words))), {255})
        layout = Layout(split="", photos="images/*", labels="labels/{stem}.png", ids=ids)
    else:
        official = class_list(name)
        words = parse_classes(classes) if classes is not None else official
        if len(words) != len(official):
            raise DatasetError(f"got {len(words)} classes; {name} has {len(official)}")
        if name == "pascal-context-59":
            return _whole(_pascal_context(root, split or "val", words))
        layout = LAYOUTS[name]
    if layout.instead and not (root / layout.labels).parent.is_dir():
        _log.warning("%s: no %s below %s, so the labels are %s", name, layout.labels, root, layout.instead)
        layout = dataclasses.replace(layout, labels=layout.instead)
    split = split or layout.split
    photos, labels = _find(name, root, layout, split)
    return _whole(
        Dataset(
            name=name,
            split=split,
            classes=words,
            photos=photos,
            labels=labels,
            ids=layout.ids,
            label_files=layout.labels,
            expected=layout.count if split == layout.split else None,
        )
    )


def _whole(data: Dataset) -> Dataset:
    """The set itself, after a word if it is not whole."""
    if data.expected is not None and len(data) < data.expected:
        _log.warning(
            "%s %s has %d photos here; expected %d. A score over fewer is another score.",
            *(data.name, data.split, len(data), data.expected),
        )
    return data


def _find(name: str, root: Path, layout: Layout, split: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Photos and label files, in pairs."""
    if layout.listing:
        listing = root / layout.listing.format(split=split)
        try:
            stems = listing.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{name}: {listing} cannot be read: {error}") from error
        photos = [root / layout.photos.format(stem=stem) for stem in stems]
    else:
        pattern = layout.photos.format(split=split)
        photos = sorted(path for path in root.glob(pattern) if not path.name.startswith("."))
    if not photos:
        raise DatasetError(f"{name}: nothing at {root / layout.photos.format(split=split, stem='*')}")
    labels = [
        root
        / layout.labels.format(
            split=split, stem=photo.stem.removesuffix(layout.suffix), folder=photo.parent.name
        )
        for photo in photos
    ]
    missing = [path for path in [*photos, *labels] if not path.is_file()]
    if missing:
        raise DatasetError(f"{name}: {len(missing)} files are missing, the first is {missing[0]}")
    return tuple(photos), tuple(labels)


_SCALES = {"L;2": 85, "L;4": 17}


def _read_ids(file: Path) -> npt.NDArray[np.integer]:
    """The ids in a label file: `[H, W]`, of a palette its indices."""
    try:
        with open_image_file(file) as image:
            stored = image.tile[0].args if image.format == "PNG" else None
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{file} cannot be read as an image: {error}. Is the file complete?") from error
    # Pillow scales grey of fewer bits than 8 to 0-255.
    pixels = pixels // _SCALES.get(str(stored), 1) if pixels.dtype != bool else pixels.astype(np.uint8)
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.integer) or pixels.min() < 0:
        raise DatasetError(
            f"{file} has pixels {pixels.dtype} {pixels.shape}; expected one label id a pixel, grey or palette"
        )
    return pixels


@dataclass(frozen=True)
class _Codes:
    """Pascal Context's regions of one photo: run-length codes, later ones over earlier ones."""

    name: str
    size: tuple[int, int]
    regions: tuple[tuple[int, Any], ...]

    def decode(self) -> npt.NDArray[np.int64]:
        ids = np.zeros(self.size, np.int64)
        for label, code in self.regions:
            try:
                ids[decode_mask(code)] = label
            except (ValueError, IndexError) as error:
                raise DatasetError(f"{self.name} has a region that cannot be decoded: {error!r}") from error
        return ids


def _pascal_context(root: Path, split: str, words: Mapping[str, tuple[str, ...]]) -> Dataset:
    """The set as its authors' own file has it, read as the official evaluation does."""
    file = root / _CONTEXT_FILE
    try:
        content = json.loads(file.read_bytes())
        entries = [entry for entry in content["images"] if entry["phase"] == split]
        regions: dict[Any, list[tuple[int, Any]]] = {entry["image_id"]: [] for entry in entries}
        for item in content["annos_segmentation"]:
            if item["image_id"] in regions:
                regions[item["image_id"]].append((int(item["category_id"]), item["segmentation"]))
        labels = tuple(
            _Codes(
                f"{entry['file_name']} in {file}",
                (entry["height"], entry["width"]),
                tuple(regions[entry["image_id"]]),
            )
            for entry in entries
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"pascal-context-59: {file} cannot be read: {error!r}") from error
    photos = tuple(root / "JPEGImages" / entry["file_name"] for entry in entries)
    missing = [photo for photo in photos if not photo.is_file()]
    if missing or not photos:
        what = f"{missing[0]} is missing" if missing else f"no photos of the phase {split!r} in {file}"
        raise DatasetError(f"pascal-context-59: {what}")
    return Dataset(
        name="pascal-context-59",
        split=split,
        classes=words,
        photos=photos,
        labels=labels,
        ids=CONTEXT_IDS,
        label_files=_CONTEXT_FILE,
        expected=CONTEXT_COUNT if split == "val" else None,
    )


def _ranges(ids: Mapping[int, int]) -> str:
    """``0-33, 255`` of what a set has."""
    numbers, parts = sorted(ids), []
    start = numbers[0]
    for number, following in zip(numbers, [*numbers[1:], None], strict=True):
        if following != number + 1:
            parts.append(f"{start}-{number}" if number > start else str(number))
            start = following  # type: ignore[assignment]
    return ", ".join(parts)
