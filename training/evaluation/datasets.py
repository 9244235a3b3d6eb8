"""Labelled data sets: photos with a class for each pixel.

Label files are read as distributed, without conversion. An unknown label id is an error, because the file
then belongs to another data set or was converted. ``layouts.yaml`` has the layouts and label ids.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.images import image_suffixes, open_image_file, orientation
from pixelclip_sdk.words.classes import Classes, class_list, parse_classes
from training.evaluation.labels import DatasetError, LabelFile, LabelRegions, read_pascal_context
from training.evaluation.layouts import LAYOUTS, Layout, label_ids
from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX

__all__ = ["DATASETS", "Dataset", "DatasetError", "load_dataset"]

_log = logging.getLogger(__name__)

_MAX_CLASSES = BACKGROUND  # labels are uint8, and BACKGROUND and IGNORE_INDEX are two of the values

DATASETS = (*sorted(LAYOUTS), "folder")
"""Names for `load_dataset`. ``folder`` is any folder with ``images`` and ``labels``."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Photos with the class of each pixel."""

    name: str  # one of DATASETS, or any other name for a folder
    split: str
    classes: Mapping[str, tuple[str, ...]]  # name → synonyms, in label order
    photos: tuple[Path, ...]
    labels: tuple[LabelFile | LabelRegions, ...]  # of each photo
    ids: Mapping[int, int]  # label id → class index, BACKGROUND or IGNORE_INDEX
    label_files: str  # location of the labels below the root
    expected: int | None = None  # number of photos in the complete split; None if unknown
    doubt: str = ""  # data set of these classes in whose own labels 0 is the background, not the first class

    def __len__(self) -> int:
        return len(self.photos)

    def truth(self, index: int) -> npt.NDArray[np.uint8]:
        """Reads the ground truth: `[H, W]` class indices, `BACKGROUND` or `IGNORE_INDEX`."""
        ids = self.labels[index].read()
        if wrong := self._unknown(ids):
            raise DatasetError(f"{self.labels[index].name} has {self._explain(wrong)}")
        table = np.zeros(max(self.ids) + 1, np.uint8)
        table[list(self.ids)] = list(self.ids.values())
        return table[ids]

    def pair(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Reads a photo, `[H, W, 3]` RGB, and its `truth`."""
        photo, truth = load_image(self.photos[index]), self.truth(index)
        self._check_size(index, (photo.shape[0], photo.shape[1]), truth)
        return photo, truth

    def check_labels(self) -> Iterator[None]:
        """Reads all labels and the sizes of all photos, one per step; raises if they cannot be used."""
        wrong: set[int] = set()
        files: list[Path | str] = []
        zeros = 0
        for index, labels in enumerate(self.labels):
            ids = labels.read()
            self._check_size(index, _photo_size(self.photos[index]), ids)
            if unknown := self._unknown(ids):
                wrong |= unknown
                files.append(labels.name)
            zeros += bool((ids == 0).any())
            yield
        if files:
            more = f" and {len(files) - 1} other label files have" if len(files) > 1 else " has"
            raise DatasetError(f"{files[0]}{more} {self._explain(wrong)}")
        if self.doubt and 2 * zeros > len(self):
            raise DatasetError(
                f"{zeros} of {len(self)} label files have the id 0, which would be "
                f"{next(iter(self.classes))!r}. Is 0 the background, as in the labels of {self.doubt}? "
                "Then give --ignore 0. If 0 is the first class, give --ignore 255"
            )

    def _check_size(self, index: int, size: tuple[int, int], labels: npt.NDArray[np.integer]) -> None:
        if labels.shape != size:
            raise DatasetError(
                f"{self.photos[index]} is {size}, its labels are {labels.shape}; expected equal sizes"
            )

    def _unknown(self, ids: npt.NDArray[np.integer]) -> set[int]:
        return set(np.unique(ids[~np.isin(ids, list(self.ids))]).tolist())

    def _explain(self, wrong: Collection[int]) -> str:
        found = ", ".join(map(str, sorted(wrong)[:10])) + (", …" if len(wrong) > 10 else "")
        message = f"the label ids {found}; {self.name} has {_ranges(self.ids)}. "
        if self.name in LAYOUTS:
            return message + "Use the labels as distributed; these are of another data set or were converted."
        for name, layout in LAYOUTS.items():
            if "{stem}" in layout.label and [*self.classes] == [*class_list(name)]:
                scored = {label for label, index in layout.ids.items() if index < BACKGROUND}
                unscored = (set(range(max(scored))) - scored) | (set(wrong) & set(layout.ids) - scored)
                return f"{message}If they are those of {name}, give --ignore {_spaced(unscored)}"
        if list(wrong) == [len(self.classes)] and self.ids.get(0) == 0:
            message += "If 0 is the background, give --ignore 0: the first class then has id 1. "
        return f"{message}Give one class per id, or ignore ids: --ignore {_spaced(wrong)}"


def _photo_size(file: Path) -> tuple[int, int]:
    """Reads the size `(H, W)` of an upright photo from its header."""
    try:
        with open_image_file(file) as image:
            turned = orientation(image) >= 5  # by 90°
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # Damaged files make Pillow raise errors of almost any type.
        raise ImageError(f"{file} cannot be opened as an image: {error}. Is the file complete?") from error


def load_dataset(
    name: str,
    root: Path,
    *,
    split: str | None = None,
    classes: Classes | None = None,
    ignore: Collection[int] = (),
) -> Dataset:
    """Finds the photos and labels of a data set, without reading them.

    Logs a warning if the split is incomplete.

    Args:
        name: One of `DATASETS`.
        root: Folder of the data set.
        split: Name of the split; None for the one that is usually scored. ``folder`` has none.
        classes: Other names for the classes, in label order; required for ``folder``.
        ignore: Label ids that are not scored, besides those of the data set. In a ``folder``, 255 is always
            ignored, and the classes have the lowest ids that are not ignored: with ``ignore=[0]`` 0 is the
            background, and the first class has id 1.

    Raises:
        DatasetError: Files are missing, or the number of classes is wrong.
        VocabularyError: The classes are invalid.
    """
    if name not in DATASETS:
        raise DatasetError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")
    if name == "folder":
        return _load_folder(root, classes, set(ignore))
    official = class_list(name)
    words = parse_classes(classes) if classes is not None else official
    if len(words) != len(official):
        raise DatasetError(f"got {len(words)} classes; {name} has {len(official)}")
    data = _load(name, root, LAYOUTS[name], split or LAYOUTS[name].split, words)
    if data.expected is not None and len(data) < data.expected:
        _log.warning(
            "%s %s has %d photos here; the complete split has %d. The score is not comparable.",
            *(data.name, data.split, len(data), data.expected),
        )
    ignored = {label: IGNORE_INDEX for label in ignore if data.ids.get(label) != BACKGROUND}
    return dataclasses.replace(data, ids={**data.ids, **ignored})


def _load_folder(root: Path, classes: Classes | None, ignore: set[int]) -> Dataset:
    if classes is None:
        raise DatasetError("a folder needs the names of its classes, in label order: --classes")
    words = parse_classes(classes)
    if len(words) > _MAX_CLASSES:
        raise DatasetError(f"{len(words)} classes; expected at most {_MAX_CLASSES}")
    doubts = [
        name
        for name, layout in LAYOUTS.items()
        if not ignore and layout.ids.get(0) == BACKGROUND and [*words] == [*class_list(name)]
    ]
    background = {0} if ignore - {255} == {0} else set()
    ignore = ignore | {255}
    ids = [i for i in range(len(words) + len(ignore)) if i not in ignore][: len(words)]
    layout = Layout(photo="images/*", label="labels/{stem}.png", ids=label_ids(ids, ignore, background))
    return dataclasses.replace(_load("folder", root, layout, "", words), doubt="".join(doubts))


def _load(name: str, root: Path, layout: Layout, split: str, words: Mapping[str, tuple[str, ...]]) -> Dataset:
    if layout.alternative and not (root / layout.label).parent.is_dir():
        _log.warning("%s: no %s in %s; using %s", name, layout.label, root, layout.alternative)
        layout = dataclasses.replace(layout, label=layout.alternative)
    labels: list[LabelFile | LabelRegions]
    if layout.label.endswith(".json"):
        regions = read_pascal_context(root / layout.label, split)
        photos = [(root / layout.photo).with_name(photo) for photo in regions]
        labels = [*regions.values()]
    else:
        photos = _find_photos(name, root, layout, split)
        labels = []
        for photo in photos:
            stem = photo.stem.removesuffix(layout.suffix)
            label = layout.label.format(split=split, stem=stem, folder=photo.parent.name)
            labels.append(LabelFile(root / label))
    if not photos:
        raise DatasetError(
            f"{name}: no photos at {root / layout.photo.format(split=split, stem='*')} of the split "
            f"{split!r}.{_other_splits(root, layout)}"
        )
    files = [*photos, *(label.name for label in labels if isinstance(label, LabelFile))]
    if missing := [path for path in files if not path.is_file()]:
        raise DatasetError(f"{name}: {len(missing)} files are missing, the first is {missing[0]}")
    return Dataset(
        name=name,
        split=split,
        classes=words,
        photos=tuple(photos),
        labels=tuple(labels),
        ids=layout.ids,
        label_files=layout.label,
        expected=layout.photos if split == layout.split else None,
    )


def _find_photos(name: str, root: Path, layout: Layout, split: str) -> list[Path]:
    """Returns the photos of the listing, or those that match the pattern."""
    if not layout.listing:
        suffixes = image_suffixes()
        return sorted(
            path
            for path in root.glob(layout.photo.format(split=split))
            if not path.name.startswith(".") and path.suffix.lower() in suffixes
        )
    listing = root / layout.listing.format(split=split)
    try:
        stems = listing.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{name}: cannot read {listing}: {error}.{_other_splits(root, layout)}") from error
    return [root / layout.photo.format(stem=stem) for stem in stems]


def _other_splits(root: Path, layout: Layout) -> str:
    """Returns advice to use a split that exists, or to check the root."""
    pattern = PurePosixPath(layout.listing or layout.photo)
    splits: set[str] = set()
    for level, part in enumerate(pattern.parts):
        if "{split}" in part:
            paths = root.glob(str(pattern).replace("{split}", "*"))
            splits = {Path(path.relative_to(root).parts[level]).stem for path in paths}
    # A split needs labels as well.
    labels = PurePosixPath(layout.label).parent.as_posix().partition("{folder}")[0]
    splits = {split for split in splits if (root / labels.format(split=split)).is_dir()}
    if splits:
        return f" This folder has the splits {', '.join(sorted(splits))}: choose one with --split."
    return " Is --root the folder of the data set?"


def _spaced(ids: Collection[int]) -> str:
    return " ".join(map(str, sorted(ids)[:20])) + (" …" if len(ids) > 20 else "")


def _ranges(ids: Collection[int]) -> str:
    """Formats ids as ranges: ``0-33, 255``."""
    parts: list[list[int]] = []
    for number in sorted(ids):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
