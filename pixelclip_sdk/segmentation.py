"""Segmentation: the result for one picture."""

import dataclasses
import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import OutputError, VocabularyError
from pixelclip_sdk.postprocess import label_dtype, scores_upsampled, unknown_label
from pixelclip_sdk.preprocess import Draft, Picture, load_image, picture_size
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.hints import did_you_mean

__all__ = ["FrameInfo", "Segmentation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameInfo:
    """Where in a stream a picture comes from.

    Attributes:
        index: Number of the frame in its source, from 0. Dropped frames are counted, so numbers skip them.
        time_s: Seconds since the source's first frame, by the source's own clock; None if it has none, as
            folders and arrays.
        source: Which of the streamed sources, from 0.
        dropped: Frames of this source before this one that were replaced by newer ones.
        damaged: Pieces of this source before this frame that could not be decoded.
    """

    index: int
    time_s: float | None
    source: int = 0
    dropped: int = 0
    damaged: int = 0


class _Image:
    """A field that takes a decoded picture and gives an array, made when it is first asked for.

    Most results are read for their labels alone, and a copy of the picture costs as much as those.
    """

    # One for all results: each needs it once at most, for a copy's time, and a lock of its own would keep it
    # from being pickled.
    _lock = threading.Lock()

    def __get__(self, result: "Segmentation | None", kind: type | None = None) -> npt.NDArray[np.uint8]:
        if result is None:
            raise AttributeError("image")  # To dataclasses: there is no default.
        picture: Picture = result.__dict__["image"]
        if isinstance(picture, np.ndarray):
            return picture
        with self._lock:
            picture = result.__dict__["image"]
            array = load_image(picture.file) if isinstance(picture, Draft) else np.asarray(picture)
            result.__dict__["image"] = array
        return array

    def __set__(self, result: "Segmentation", picture: Picture) -> None:
        result.__dict__["image"] = picture


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Segmentation:
    """What was found in one picture. Owns its labels and logits; keeps its names when the segmenter's change.

    Attributes:
        labels: `(H, W)` at the picture's own size: index into `names`, or `unknown`. uint8; uint16
            beyond 255 names.
        logits: `(K, h, w)` float32: the cosines on the model's grid that the labels were interpolated from.
        names: The class names it was made with, K.
        image: `(H, W, 3)` uint8 RGB: the picture. To be read only: it may be the array that was given to
            `predict`, not a copy. A decoded file (a PIL image here) becomes an array when first asked for.
        speed: Milliseconds of each stage: ``decode``, ``preprocess``, ``inference``, ``postprocess`` and
            their ``total``. In a batch, inference is the batch's time divided by its pictures. In a stream
            there is also ``wait``, the time in queues, and ``total`` is the frame's age when it was handed
            out.
        covered: Share `(down, across)` of the grid that the picture covers, from its top left.
        frame: Where in a stream the picture comes from; None outside of `Segmenter.stream`.
    """

    labels: npt.NDArray[np.uint8 | np.uint16]
    logits: npt.NDArray[np.float32]
    names: list[str]
    image: _Image = _Image()
    speed: Mapping[str, float]
    covered: tuple[float, float] = (1.0, 1.0)
    frame: FrameInfo | None = None

    def __post_init__(self) -> None:
        if self.labels.dtype != label_dtype(len(self.names)):
            raise ValueError(f"labels are {self.labels.dtype}; expected {label_dtype(len(self.names))}")
        size = picture_size(self.__dict__["image"])
        if self.labels.shape != size:
            raise ValueError(f"labels {self.labels.shape} and image {size} differ")
        if len(self.logits) != len(self.names):
            raise ValueError(f"logits {self.logits.shape} are not of {len(self.names)} names")

    @functools.cached_property
    def scores(self) -> npt.NDArray[np.float32]:
        """Cosine of the winning class, `(H, W)` float32, −1…1, also where the label is unknown.

        Computed when first asked for, which takes longer than the labels did.
        """
        return scores_upsampled(self.logits, self.orig_shape, self.covered)

    @property
    def unknown(self) -> int:
        """The label of pixels that no class explains: 255, or 65535 beyond 255 names."""
        return unknown_label(len(self.names))

    @property
    def orig_shape(self) -> tuple[int, int]:
        """Size `(H, W)` of the picture."""
        height, width = self.labels.shape
        return height, width

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Where a class was found.

        Returns:
            `(H, W)` bool.

        Raises:
            VocabularyError: `name` is not one of the names.
        """
        if name not in self.names:
            hint = did_you_mean(name, self.names)
            raise VocabularyError(
                f"no class {name!r} in this result.{hint} It has: {', '.join(self.names[:20])}"
            )
        result: npt.NDArray[np.bool_] = self.labels == self.names.index(name)
        return result

    def areas(self) -> dict[str, float]:
        """Share of the picture each class covers, 0–1, largest first; what is missing from 1 is unknown."""
        if self.labels.dtype == np.uint8:  # Many times as fast as bincount, which widens every pixel first.
            counts = np.array(Image.fromarray(self.labels).histogram()[: len(self.names)])
        else:
            counts = np.bincount(self.labels.ravel(), minlength=len(self.names))[: len(self.names)]
        order = np.argsort(-counts, kind="stable")
        return {self.names[i]: float(counts[i] / self.labels.size) for i in order}

    def plot(self, *, opacity: float = 0.55, legend: bool | Literal["inside"] = True) -> Image.Image:
        """The picture with its regions tinted and outlined.

        Args:
            opacity: Of the tint, 0–1.
            legend: Whether to add the names, with their shares, underneath. ``"inside"``, for video: the
                names alone, over the picture, whose size stays.

        Returns:
            An RGB picture. ``numpy.asarray`` makes it an array.

        Raises:
            PixelClipError: `opacity` is not in 0–1.
        """
        # Only people who draw pay for the drawing library.
        from pixelclip_sdk.visualize import draw_overlay

        return draw_overlay(
            self.image, self.labels, self.names, self.areas(), self.unknown, opacity=opacity, legend=legend
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write what `plot` shows. An existing file is replaced in one step.

        Args:
            path: An image file; its suffix decides the format.

        Raises:
            OutputError: The file cannot be written, or Pillow does not write such files.
        """
        target = Path(path)
        if target.suffix.lower() not in Image.registered_extensions():
            raise OutputError(
                f"cannot save an image as {target.name!r}; expected a name ending in .png or .jpg"
            )
        return _save(self.plot(), target)

    def save_labels(self, path: str | os.PathLike[str]) -> Path:
        """Write the label map as a PNG whose pixel values are the labels.

        Up to 255 names it is a palette image, so that viewers show colours and
        ``numpy.asarray(Image.open(path))`` gives the labels; beyond, a 16-bit greyscale one.

        Raises:
            OutputError: The file cannot be written, or its name does not end in ``.png``.
        """
        target = Path(path)
        if target.suffix.lower() != ".png":
            raise OutputError(
                f"cannot save labels as {target.name!r}; expected a name ending in .png (lossless)"
            )
        from pixelclip_sdk.visualize import palette

        picture = Image.fromarray(self.labels)
        if self.labels.dtype == np.uint8:
            picture.putpalette(palette(256).tobytes())
        return _save(picture, target)


def _save(picture: Image.Image, target: Path) -> Path:
    with atomic_write(target) as temporary:
        try:
            picture.save(temporary)
        except (ValueError, KeyError) as error:
            raise OutputError(f"Pillow cannot write {target.name}: {error}. Use .png or .jpg.") from error
    return target
