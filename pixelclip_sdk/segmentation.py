"""The result of segmenting one image."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.confidence import Calibration, Rivals, confidence_map, posteriors
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.image import LazyImage, picture_size, strip_rows
from pixelclip_sdk.lazy import Lazy
from pixelclip_sdk.postprocess import (
    argmax_upsampled,
    covered_cells,
    label_dtype,
    labels_upsampled,
    scores_in_strips,
    unknown_label,
)
from pixelclip_sdk.refine import refine_edges
from pixelclip_sdk.results.labels import find_label
from pixelclip_sdk.settings import Refine, choose_refine
from pixelclip_sdk.support.files import user_path

if TYPE_CHECKING:
    from pixelclip_sdk.device.arrays import DeviceArray
    from pixelclip_sdk.results.regions import Classes, Region

__all__ = ["FrameInfo", "Segmentation"]

_LARGE = 1 << 20  # Pixels above which scores are made in strips.
REGION_AREA = 0.001
"""Smallest region that counts as one: a share of the image. A cell of lite's grid (10×15) has 0.007."""
FOUND_AREA = 0.01
"""Smallest region that says that a class is there: a share of the image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameInfo:
    """Position of a frame in a stream; the attribute `frame` of the results of `Segmenter.stream`.

    Attributes:
        index: Number of the frame in its source, from 0. Dropped frames are counted, so numbers may skip.
        time_s: Seconds since the first frame of the source, by the timestamps of the source; None if it has
            none (folders, arrays). For frames that were passed with a time, that time.
        source: Index of the source among the arguments of `stream`, from 0.
        id: The object that was passed with the frame, or None.
        dropped: Number of frames of this source that were dropped since its last result.
        dropped_total: Number of frames of this source that were dropped since the start.
        damaged: Number of packets of this source before this frame that could not be decoded, since the
            start.
        seen: Names that `Segmentation.plot` has drawn in legends inside frames of this source; it keeps them
            there, so that the legend does not flicker.

    Examples:
        >>> from pixelclip_sdk.segmentation import FrameInfo
        >>> FrameInfo(index=7, time_s=0.28)
        FrameInfo(index=7, time_s=0.28, source=0, id=None, dropped=0, dropped_total=0, damaged=0)
    """

    index: int
    time_s: float | None
    source: int = 0
    id: object = None
    dropped: int = 0
    dropped_total: int = 0
    damaged: int = 0
    seen: dict[str, None] = dataclasses.field(default_factory=dict, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Segmentation:
    """The result of segmenting one image: a class for every pixel.

    `Segmenter.predict` returns it. It owns its labels and logits, and it keeps its names when the classes of
    the segmenter change.

    Attributes:
        labels: `(H, W)` at the size of the image: an index into `names`, or `unknown`. uint8, or uint16 with
            more than 255 names.
        logits: `(K, h, w)` float32, −1…1: cosine similarity of each class at the points of the model's grid,
            smaller for words that fit too many photos (`Bundle.damping`). The labels were made from it.
        names: The K class names, an immutable tuple.
        image: `(H, W, 3)` uint8 RGB: the image. Do not modify it, because it may be the array that was
            passed to `predict`.
        speed: Milliseconds of the stages ``decode``, ``preprocess``, ``inference``, ``refine`` and
            ``postprocess``, and their sum ``total``. In a batch, inference is the time of the batch divided
            by its size. ``smooth`` is the time of smoothing (missing without it; 0 or missing on a GPU, where
            it is part of inference). In a stream, ``wait`` is the time in queues, and ``total`` is the age of
            the frame when the result was returned.
        covered: Fractions `(of the height, of the width)` of the grid that the image covers, from the top
            left. The rest is padding.
        refine: How the labels were made from the logits: ``"edges"`` or ``"off"``; see `refined`.
        rivals: What competes with the classes in `confidence`; None for a plain softmax.
        frame: Position in a stream; None for results of other methods.
        labels_on_device: The labels as a `DeviceArray` if the frame was on a GPU, else None. They may be
            under way: libraries that take it wait on the GPU, and `labels` waits and copies them to the host.
        scores_on_device: The same for `scores`; None with background words of yours.

    Raises:
        PixelClipError: The shapes or dtypes of the arrays do not fit together.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import Segmentation
        >>> result = Segmentation(
        ...     labels=np.array([[0, 0], [1, 255]], np.uint8),
        ...     logits=np.zeros((2, 1, 1), np.float32),
        ...     names=("cat", "sofa"),
        ...     image=np.zeros((2, 2, 3), np.uint8),
        ...     speed={},
        ... )
        >>> result
        Segmentation(2×2, 2 classes: cat 50%, sofa 25%, unknown 25%)
        >>> result.areas()
        {'cat': 0.5, 'sofa': 0.25}
        >>> int(result.mask("cat").sum())
        2
        >>> result.presence()
        {'cat': 0.5, 'sofa': 0.5}
    """

    labels: Lazy[npt.NDArray[np.uint8 | np.uint16]] = Lazy()  # noqa: RUF009 (a descriptor, as all of these)
    logits: Lazy[npt.NDArray[np.float32]] = Lazy()  # noqa: RUF009
    names: Sequence[str]
    image: LazyImage = LazyImage()  # noqa: RUF009
    speed: Mapping[str, float]
    covered: tuple[float, float] = (1.0, 1.0)
    refine: Literal["edges", "off"] = "off"
    rivals: Lazy[Rivals | None] = Lazy(None)  # noqa: RUF009
    frame: FrameInfo | None = None
    labels_on_device: "DeviceArray | None" = None
    scores_on_device: "DeviceArray | None" = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        dtype = label_dtype(len(self.names))
        # Not `self.labels`: they may be on a GPU.
        labels, logits = self.__dict__["labels"], self.__dict__["logits"]
        if labels.dtype != dtype:
            raise PixelClipError(f"labels are {labels.dtype}; expected {np.dtype(dtype)}")
        size = picture_size(self.__dict__["image"])
        if labels.shape != size:
            raise PixelClipError(f"labels have shape {labels.shape}; expected {size}, the size of the image")
        if len(logits.shape) != 3 or logits.shape[0] != len(self.names):
            raise PixelClipError(
                f"logits have shape {logits.shape}; expected ({len(self.names)}, h, w), one row a name"
            )

    def __repr__(self) -> str:
        areas = self.areas()
        shown = [f"{name} {area:.0%}" for name, area in list(areas.items())[:5] if area > 0]
        if (unknown := 1 - sum(areas.values())) > 1e-9:
            shown.append(f"unknown {unknown:.0%}")
        size = "×".join(map(str, self.orig_shape))
        noun = "class" if len(self.names) == 1 else "classes"
        return f"Segmentation({size}, {len(self.names)} {noun}: {', '.join(shown)})"

    @functools.cached_property
    def scores(self) -> npt.NDArray[np.float32]:
        """Cosine similarity of the best class: `(H, W)` float32, −1…1, also for unknown pixels.

        It is interpolated, and does not depend on `refine`: near borders, the best class need not be that of
        the refined labels. Computed on first access, which takes longer than computing the labels.
        """
        if self.scores_on_device is not None:
            return self.scores_on_device.numpy()
        return argmax_upsampled(self.logits, self.orig_shape, covered=self.covered)[1]

    def score_strips(self) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Yields the rows and the scores of one strip of the image after the other, see `scores`.

        For large images, whose scores take four bytes a pixel.
        """
        height, width = self.orig_shape
        if height * width <= _LARGE or self.scores_on_device is not None or "scores" in self.__dict__:
            yield slice(0, height), self.scores
        else:
            yield from scores_in_strips(self.logits, self.orig_shape, self.covered)

    @functools.cached_property
    def confidence(self) -> npt.NDArray[np.float32]:
        """Probability that the label is right: `(H, W)` float32, 0–1; of the best class for unknown pixels.

        Everyday words that come with the model compete with the classes; see `pixelclip_sdk.confidence`.
        It is interpolated also where labels follow edges, because filtering makes it no better (ADR 18).
        Computed on first access.
        """
        result = np.empty(self.orig_shape, np.float32)
        for rows, strip in self.confidence_strips():
            result[rows] = strip
        return result

    def confidence_strips(self) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Yields the rows and the confidences of one strip of the image after the other, see `confidence`.

        For large images, whose confidences take four bytes a pixel. Labels of a strip that was yielded may
        change.
        """
        if "confidence" in self.__dict__:
            yield slice(0, self.orig_shape[0]), self.confidence
            return
        best = None
        if (self.labels == self.unknown).any():
            best = self._best_labels(self.refine)
        height, width = self.orig_shape
        for rows in strip_rows(height, width):
            labels = self.labels[rows]
            if best is not None:
                labels = np.where(labels == self.unknown, best[rows], labels)
            yield rows, confidence_map(labels, self._posteriors, self.covered, (rows.start, height))

    @functools.cached_property
    def _posteriors(self) -> npt.NDArray[np.float32]:
        rivals = self.rivals or Rivals(self.logits[:0], self.logits[:0], Calibration())
        return posteriors(self.logits, rivals, self.covered)

    def presence(self) -> dict[str, float]:
        """How surely each class is anywhere in the image: name → 0–1, surest first.

        It is the largest probability of the class at the points of the model's grid, also where another
        class wins. Cheaper than `confidence`, and a better answer to "is it there?".
        """
        inside = self._posteriors[:, *covered_cells(self.logits.shape[1:], self.covered)]
        values = inside.max(axis=(1, 2))
        return {self.names[i]: float(values[i]) for i in np.argsort(-values, kind="stable")}

    @property
    def unknown(self) -> int:
        """The label of pixels below the threshold: 255, or 65535 with more than 255 names."""
        return unknown_label(len(self.names))

    @property
    def orig_shape(self) -> tuple[int, int]:
        """Size `(H, W)` of the image."""
        height, width = self.__dict__["labels"].shape
        return height, width

    def mask(self, name: str | int) -> npt.NDArray[np.bool_]:
        """The pixels of one class.

        Args:
            name: A class name (case is ignored) or its label, from 0. ``"unknown"`` and the label `unknown`
                select the pixels below the threshold, unless a class has the name "unknown".

        Returns:
            `(H, W)` bool.

        Raises:
            VocabularyError: There is no such class.
        """
        result: npt.NDArray[np.bool_] = self.labels == find_label(name, self.names, self.unknown)
        return result

    def refined(self, refine: Refine | None = "edges") -> "Segmentation":
        """Makes the labels again, along the edges of the image or without them.

        Args:
            refine: ``"edges"``: labels follow the edges of the image (see `pixelclip_sdk.refine`). ``"off"``
                or None: the cosines are interpolated, and the largest wins.

        Returns:
            A copy with other labels. Unknown pixels stay unknown.

        Raises:
            PixelClipError: `refine` has another value.

        Examples:
            >>> from pixelclip_sdk import Segmenter
            >>> import numpy as np
            >>> image = np.zeros((48, 64, 3), np.uint8)
            >>> with Segmenter.from_pretrained("pixelclip-lite", classes="cat, sofa") as segmenter:
            ...     result = segmenter.predict(image, refine="off")
            >>> result.refine, result.refined().refine
            ('off', 'edges')
        """
        chosen = choose_refine(refine, "edges")
        labels = self._best_labels(chosen)
        labels[self.labels == self.unknown] = self.unknown
        return self.replaced(labels=labels, refine=chosen, labels_on_device=None)

    def _best_labels(self, refine: str) -> npt.NDArray[np.uint8 | np.uint16]:
        """The best class of every pixel: labels without unknown ones."""
        if refine != "edges":
            return labels_upsampled(self.logits, self.orig_shape, covered=self.covered)
        picture = self.__dict__["image"]
        if not isinstance(picture, np.ndarray | Image.Image):
            picture = self.image
        return refine_edges(self.logits, picture, self.covered)[0]

    def replaced(self, **changes: Any) -> "Segmentation":
        """Returns a copy with other fields. What is on a GPU stays there."""
        kept = {name: self.__dict__[name] for name in ("labels", "logits", "rivals", "image")}
        return dataclasses.replace(self, **(kept | changes))

    def areas(self) -> dict[str, float]:
        """Fraction of the image that each class covers, 0–1, largest first.

        The sum is below 1 if some pixels are unknown.
        """
        if self.labels.dtype == np.uint8:  # Many times as fast as bincount, which first widens every pixel.
            counts = np.array(Image.fromarray(self.labels).histogram()[: len(self.names)])
        else:
            counts = np.bincount(self.labels.ravel(), minlength=len(self.names))[: len(self.names)]
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: float(counts[i] / self.labels.size) for i in order}

    def regions(
        self, *, min_area: float = REGION_AREA, classes: "Classes | None" = None
    ) -> "tuple[Region, ...]":
        """The connected parts of the image with one class each, largest first.

        Args:
            min_area: Smaller regions are left out: a share of the image, 0–1. The default is a fraction of a
                cell of the model's grid; smaller regions are specks at borders.
            classes: Names or labels of the classes to look for; by default all. Unknown pixels form regions
                only if ``"unknown"`` is among them.

        Raises:
            PixelClipError: `min_area` is not a share of the image.
            VocabularyError: There is no such class.
        """
        from pixelclip_sdk.results.regions import find_regions

        return find_regions(self, min_area, classes)

    def found(self, *, min_area: float = FOUND_AREA) -> dict[str, float]:
        """The classes that are really there: name → fraction of the image, 0–1, largest first.

        `areas` has every class, and many have a few pixels. This counts regions of at least `min_area` only.

        Args:
            min_area: Smaller regions do not count: a share of the image, 0–1.

        Raises:
            PixelClipError: `min_area` is not a share of the image.
        """
        from pixelclip_sdk.results.regions import found

        return found(self, min_area)

    def crop(self, what: "str | int | Region") -> Image.Image:
        """The smallest rectangle of the image around a class or a region, RGB.

        Args:
            what: A class by name or label, or one of `regions`.

        Raises:
            VocabularyError: There is no such class.
            PixelClipError: The class has no pixels.
        """
        from pixelclip_sdk.results.pictures import crop

        return crop(self, what)

    def cutout(self, what: "str | int | Region") -> Image.Image:
        """Like `crop`, RGBA: pixels of other classes and regions are transparent."""
        from pixelclip_sdk.results.pictures import cutout

        return cutout(self, what)

    def summary(self, *, min_area: float = REGION_AREA) -> dict[str, Any]:
        """The result without its arrays, ready for JSON.

        Returns:
            ``size`` `[H, W]`, ``areas`` of the classes that are there, ``unknown_area``, ``regions`` (see
            `Region.summary`) of at least `min_area`, ``speed_ms`` and ``frame``.
        """
        from pixelclip_sdk.results.formats import summary

        return summary(self, self.regions(min_area=min_area))

    def to_json(self, *, min_area: float = REGION_AREA) -> str:
        """Returns `summary` as a JSON text."""
        return json.dumps(self.summary(min_area=min_area), ensure_ascii=False)

    def to_supervision(self, *, min_area: float = REGION_AREA, classes: "Classes | None" = None) -> Any:
        """Returns the `regions` as ``supervision.Detections``, with masks and the names as ``class_name``.

        Raises:
            BackendUnavailableError: The package ``supervision`` is not installed.
        """
        from pixelclip_sdk.results.formats import supervision_detections

        return supervision_detections(self.regions(min_area=min_area, classes=classes))

    def to_coco(
        self, file_name: str, *, image_id: int = 1, first_id: int = 1, min_area: float = REGION_AREA
    ) -> dict[str, Any]:
        """Returns the `regions` as a COCO data set of one image: ``images``, ``annotations``, ``categories``.

        Masks are run lengths, so they are exact. The id of a category is the label plus 1.

        Args:
            file_name: Where readers find the image.
            image_id: Id of the image.
            first_id: Id of the first annotation. Ids must differ in a file of several images.
            min_area: Smaller regions are left out: a share of the image, 0–1.
        """
        from pixelclip_sdk.results import formats

        return {
            "images": [formats.coco_image(self, file_name, image_id)],
            "annotations": formats.coco_annotations(self.regions(min_area=min_area), image_id, first_id),
            "categories": formats.coco_categories(self.names),
        }

    def to_labelme(self, image_path: str, *, min_area: float = REGION_AREA) -> dict[str, Any]:
        """Returns the `regions` as the content of a labelme file, with one polygon each.

        Args:
            image_path: Path of the image, relative to the folder of the file.
            min_area: Smaller regions are left out: a share of the image, 0–1.
        """
        from pixelclip_sdk.results.formats import labelme

        return labelme(self, self.regions(min_area=min_area), image_path)

    def to_yolo_seg(self, *, min_area: float = REGION_AREA) -> str:
        """Returns the `regions` as the content of a YOLO segmentation file, with a polygon in each line."""
        from pixelclip_sdk.results.formats import yolo_lines

        return yolo_lines(self, self.regions(min_area=min_area))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        from pixelclip_sdk.results.pictures import png

        return png(self.plot())

    def plot(self, *, opacity: float = 0.55, legend: bool | Literal["inside"] = True) -> Image.Image:
        """Draws the classes over the image, with outlines and a legend.

        Args:
            opacity: Opacity of the colours, 0–1.
            legend: True adds the names and their areas below the image. ``"inside"``, for video, draws the
                names over the image and keeps its size. A name stays in the legends of a stream once it was
                drawn.

        Returns:
            An RGB image. ``numpy.asarray`` converts it to an array.

        Raises:
            PixelClipError: `opacity` is not in 0–1.
        """
        # Imported here because most programs never draw.
        from pixelclip_sdk.visualize import draw_overlay

        return draw_overlay(
            self.__dict__["image"],  # Not as an array, which would be a copy.
            self.labels,
            self.names,
            self.areas(),
            self.unknown,
            opacity=opacity,
            legend=legend,
            seen=self.frame.seen if self.frame is not None else None,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the image that `plot` returns. An existing file is replaced atomically.

        Args:
            path: Path of the image file. Its suffix selects the format.

        Returns:
            The path.

        Raises:
            OutputError: The file cannot be written, or its suffix is not one of an image format.
        """
        from pixelclip_sdk.results.pictures import save_picture

        return save_picture(self.plot(), user_path(path))

    def save_labels(self, path: str | os.PathLike[str]) -> Path:
        """Write the labels as the pixel values of a PNG file. An existing file is replaced atomically.

        With up to 255 names, the file has a palette: image viewers show colours, and
        ``numpy.asarray(Image.open(path))`` returns the labels. With more names, it is 16-bit greyscale.

        Args:
            path: Path of the file, ending in ``.png``.

        Returns:
            The path.

        Raises:
            OutputError: The file cannot be written, or its name does not end in ``.png``.
        """
        from pixelclip_sdk.results.pictures import save_labels

        return save_labels(self.labels, user_path(path))
