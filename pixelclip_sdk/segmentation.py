"""The result of segmenting one image."""

import dataclasses
import functools
import numbers
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import OutputError, PixelClipError, VocabularyError
from pixelclip_sdk.image import Picture, picture_size, to_array
from pixelclip_sdk.postprocess import argmax_upsampled, label_dtype, unknown_label
from pixelclip_sdk.support.files import atomic_write, user_path
from pixelclip_sdk.support.hints import did_you_mean, find_name, folded

__all__ = ["FrameInfo", "Segmentation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameInfo:
    """Position of a frame in a stream; the attribute `frame` of the results of `Segmenter.stream`.

    Attributes:
        index: Number of the frame in its source, from 0. Dropped frames are counted, so numbers may skip.
        time_s: Seconds since the first frame of the source, by the timestamps of the source; None if it has
            none (folders, arrays).
        source: Index of the source among the arguments of `stream`, from 0.
        dropped: Number of frames of this source that were dropped before this one, since the start.
        damaged: Number of packets of this source before this frame that could not be decoded, since the
            start.

    Examples:
        >>> from pixelclip_sdk.segmentation import FrameInfo
        >>> FrameInfo(index=7, time_s=0.28)
        FrameInfo(index=7, time_s=0.28, source=0, dropped=0, damaged=0)
    """

    index: int
    time_s: float | None
    source: int = 0
    dropped: int = 0
    damaged: int = 0


class _LazyImage:
    """A field that accepts a PIL image or an array, and converts it to an array on first access.

    Most callers read only the labels, and copying the image takes as long as computing them.
    """

    # One lock for all results: a lock in each of them could not be pickled.
    _lock = threading.Lock()

    def __get__(self, result: "Segmentation | None", kind: type | None = None) -> npt.NDArray[np.uint8]:
        if result is None:
            raise AttributeError("image")  # Tells dataclasses that the field has no default.
        picture: Picture = result.__dict__["image"]
        if isinstance(picture, np.ndarray):
            return picture
        with self._lock:
            array = to_array(result.__dict__["image"])
            result.__dict__["image"] = array
        return array

    def __set__(self, result: "Segmentation", picture: Picture) -> None:
        result.__dict__["image"] = picture


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Segmentation:
    """The result of segmenting one image: a class for every pixel.

    `Segmenter.predict` returns it. It owns its labels and logits, and it keeps its names when the classes of
    the segmenter change.

    Attributes:
        labels: `(H, W)` at the size of the image: an index into `names`, or `unknown`. uint8, or uint16 with
            more than 255 names.
        logits: `(K, h, w)` float32, −1…1: cosine similarity of each class at the points of the model's grid.
            The labels were interpolated from it.
        names: The K class names, an immutable tuple.
        image: `(H, W, 3)` uint8 RGB: the image. Do not modify it, because it may be the array that was
            passed to `predict`.
        speed: Milliseconds of the stages ``decode``, ``preprocess``, ``inference`` and ``postprocess``, and
            their sum ``total``. In a batch, inference is the time of the batch divided by its size. In a
            stream, ``wait`` is the time in queues, and ``total`` is the age of the frame when the result was
            returned.
        covered: Fractions `(of the height, of the width)` of the grid that the image covers, from the top
            left. The rest is padding.
        frame: Position in a stream; None for results of other methods.

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
    """

    labels: npt.NDArray[np.uint8 | np.uint16]
    logits: npt.NDArray[np.float32]
    names: Sequence[str]
    image: _LazyImage = _LazyImage()
    speed: Mapping[str, float]
    covered: tuple[float, float] = (1.0, 1.0)
    frame: FrameInfo | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        dtype = label_dtype(len(self.names))
        if self.labels.dtype != dtype:
            raise PixelClipError(f"labels are {self.labels.dtype}; expected {np.dtype(dtype)}")
        size = picture_size(self.__dict__["image"])
        if self.labels.shape != size:
            raise PixelClipError(
                f"labels have shape {self.labels.shape}; expected {size}, the size of the image"
            )
        if self.logits.ndim != 3 or len(self.logits) != len(self.names):
            raise PixelClipError(
                f"logits have shape {self.logits.shape}; expected ({len(self.names)}, h, w), one row a name"
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

        Computed on first access, which takes longer than computing the labels.
        """
        return argmax_upsampled(self.logits, self.orig_shape, covered=self.covered)[1]

    @property
    def unknown(self) -> int:
        """The label of pixels below the threshold: 255, or 65535 with more than 255 names."""
        return unknown_label(len(self.names))

    @property
    def orig_shape(self) -> tuple[int, int]:
        """Size `(H, W)` of the image."""
        height, width = self.labels.shape
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
        result: npt.NDArray[np.bool_] = self.labels == self._label(name)
        return result

    def _label(self, name: str | int) -> int:
        if isinstance(name, numbers.Integral) and not isinstance(name, bool):
            if 0 <= name < len(self.names) or name == self.unknown:
                return int(name)
            raise VocabularyError(
                f"no class has label {name}; expected 0 to {len(self.names) - 1} or {self.unknown} (unknown)"
            )
        if not isinstance(name, str):
            raise VocabularyError(f"got {type(name).__name__} {name!r}; expected a class name or a label")
        if found := find_name(name, self.names):
            return self.names.index(found)
        if folded(name) == "unknown":
            return self.unknown
        listed = ", ".join(self.names[:20]) + (", …" if len(self.names) > 20 else "")
        raise VocabularyError(
            f"no class {name!r} in this result.{did_you_mean(name, self.names)} Its classes: {listed}"
        )

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

    def plot(self, *, opacity: float = 0.55, legend: bool | Literal["inside"] = True) -> Image.Image:
        """Draws the classes over the image, with outlines and a legend.

        Args:
            opacity: Opacity of the colours, 0–1.
            legend: True adds the names and their areas below the image. ``"inside"``, for video, draws the
                names over the image and keeps its size.

        Returns:
            An RGB image. ``numpy.asarray`` converts it to an array.

        Raises:
            PixelClipError: `opacity` is not in 0–1.
        """
        # Imported here because most programs never draw.
        from pixelclip_sdk.visualize import draw_overlay

        return draw_overlay(
            self.image, self.labels, self.names, self.areas(), self.unknown, opacity=opacity, legend=legend
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
        target = user_path(path)
        if target.suffix.lower() not in Image.registered_extensions():
            raise OutputError(
                f"cannot save an image as {target.name!r}; expected a name ending in .png or .jpg"
            )
        return _save(self.plot(), target)

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
        target = user_path(path)
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
