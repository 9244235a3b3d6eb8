"""Regions: the connected parts of a result, with their measures and shapes."""

import dataclasses
import functools
import numbers
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.image import strip_rows
from pixelclip_sdk.results import contours, rle
from pixelclip_sdk.results.components import components
from pixelclip_sdk.results.labels import find_label

if TYPE_CHECKING:
    from pixelclip_sdk.segmentation import Segmentation

__all__ = ["Classes", "Region", "find_regions", "found"]

Classes: TypeAlias = str | int | Sequence[str | int]
"""One class or several, each by name or label."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Region:
    """A connected part of a segmentation: pixels of one class that share sides (4-connectivity).

    `Segmentation.regions` makes it. Coordinates are indices of pixels: the centre of the top left pixel is
    `(0, 0)`. Shapes and means are computed when they are first read.

    Attributes:
        name: The class.
        label: Its label.
        area: Number of pixels.
        box: `(x0, y0, x1, y1)`: columns `x0 … x1 - 1` and rows `y0 … y1 - 1`, so that
            ``image[y0:y1, x0:x1]`` is the part of the image.
        centroid: Mean `(x, y)` of the pixels. It may lie outside of a region that is not convex.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import Segmentation
        >>> labels = np.array([[0, 0, 1], [0, 0, 1]], np.uint8)
        >>> result = Segmentation(
        ...     labels=labels,
        ...     logits=np.zeros((2, 1, 1), np.float32),
        ...     names=("cat", "sofa"),
        ...     image=np.zeros((2, 3, 3), np.uint8),
        ...     speed={},
        ... )
        >>> cat, sofa = result.regions()
        >>> cat
        Region(name='cat', label=0, area=4, box=(0, 0, 2, 2), centroid=(0.5, 0.5))
        >>> cat.polygon[0].tolist()
        [[0, 0], [1, 0], [1, 1], [0, 1]]
        >>> sofa.rle()
        {'size': [2, 3], 'counts': '42'}
    """

    name: str
    label: int
    area: int
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    # `(R, 3)`: row, first column and column after the last of each run of pixels, in raster order.
    _runs: npt.NDArray[np.intp] = dataclasses.field(repr=False)
    _result: "Segmentation" = dataclasses.field(repr=False)
    _means: "_Means" = dataclasses.field(repr=False)
    _number: int = dataclasses.field(repr=False)

    @functools.cached_property
    def score(self) -> float:
        """Mean of `Segmentation.scores` over the region: cosine similarity, −1…1."""
        return float(self._means.scores[self._number])

    @functools.cached_property
    def confidence(self) -> float:
        """Mean of `Segmentation.confidence` over the region, 0–1."""
        return float(self._means.confidences[self._number])

    @functools.cached_property
    def polygon(self) -> tuple[npt.NDArray[np.int32], ...]:
        """The border as polygons `(N, 2)` int32, `(x, y)`: the outer one first, then one for each hole.

        The points are pixels of the region, as in OpenCV: a pixel belongs to the region if it lies inside
        (even-odd: not in a hole) or on a line. ``cv2.fillPoly(mask, region.polygon, 1)`` gives exactly the
        mask. A region of one pixel has one point.
        """
        corner = np.array(self.box[:2], np.int32)
        return tuple(contours.straightened(chain) + corner for chain in self._chains)

    @functools.cached_property
    def outline(self) -> npt.NDArray[np.int32]:
        """The border as a single polygon `(N, 2)` int32, `(x, y)`, by the same rule as `polygon`.

        For formats without holes: a line inside the region leads to each hole and back.
        """
        outline = contours.straightened(contours.one_polygon(self._chains, self._crop))
        return outline + np.array(self.box[:2], np.int32)

    def mask(self) -> npt.NDArray[np.bool_]:
        """The pixels of the region: `(H, W)` bool, at the size of the image."""
        mask = np.zeros(self._result.orig_shape, bool)
        mask[self._window] = self._crop
        return mask

    def rle(self, *, compressed: bool = True) -> dict[str, Any]:
        """The mask in COCO's run-length encoding, equal to the one of ``pycocotools``.

        Args:
            compressed: Whether to return the counts as a text or as a list of integers.

        Returns:
            ``size`` `[H, W]` and ``counts``.
        """
        corner = self.box[1], self.box[0]
        counts = rle.counts(self._crop, corner, self._result.orig_shape)
        size = list(self._result.orig_shape)
        return {"size": size, "counts": rle.compressed(counts) if compressed else counts}

    def summary(self) -> dict[str, Any]:
        """The measures, ready for JSON: name, label, area, box, centroid, score and confidence."""
        return {
            "name": self.name,
            "label": self.label,
            "area": self.area,
            "box": list(self.box),
            "centroid": [round(value, 2) for value in self.centroid],
            "score": round(self.score, 4),
            "confidence": round(self.confidence, 4),
        }

    @property
    def _window(self) -> tuple[slice, slice]:
        x0, y0, x1, y1 = self.box
        return slice(y0, y1), slice(x0, x1)

    @property
    def _crop(self) -> npt.NDArray[np.bool_]:
        """The pixels of the region inside its box."""
        x0, y0, x1, y1 = self.box
        width = x1 - x0
        row, start, stop = self._runs.T
        place = (row - y0) * width - x0
        # +1 where a run starts and −1 where it ends; a run may start where the one of the row before ends.
        change = np.zeros((y1 - y0) * width + 1, np.int8)
        change[place + start] = 1
        change[place + stop] -= 1
        for rows in strip_rows(y1 - y0, width):  # The sum of all at once would take the memory twice.
            first, end = rows.start * width, rows.stop * width
            if first:
                change[first] += change[first - 1]
            change[first:end] = np.cumsum(change[first:end], dtype=np.int8)
        return change[:-1].view(bool).reshape(-1, width)

    @functools.cached_property
    def _chains(self) -> list[npt.NDArray[np.int32]]:
        return contours.contours(self._crop)


class _Means:
    """Means over regions, of all that were found together: in strips, whose values take little memory.

    Args:
        result: The result.
        runs: `(R, 3)` row, first column and column after the last of each run.
        numbers: `(R,)` the region of each run, from 0.
        areas: `(N,)` the pixels of each region.
    """

    def __init__(
        self,
        result: "Segmentation",
        runs: npt.NDArray[np.intp],
        numbers: npt.NDArray[np.intp],
        areas: npt.NDArray[np.intp],
    ) -> None:
        order = np.argsort(runs[:, 0], kind="stable")
        self._result, self._areas = result, areas
        self._runs, self._numbers = runs[order], numbers[order]

    @functools.cached_property
    def scores(self) -> npt.NDArray[np.float64]:
        return self._of(self._result.score_strips())

    @functools.cached_property
    def confidences(self) -> npt.NDArray[np.float64]:
        return self._of(self._result.confidence_strips())

    def _of(self, strips: Iterable[tuple[slice, npt.NDArray[np.float32]]]) -> npt.NDArray[np.float64]:
        row, start, stop = self._runs.T
        sums = np.zeros(len(self._areas))
        for rows, values in strips:
            these = slice(*np.searchsorted(row, (rows.start, rows.stop)))
            before = np.append(0.0, np.cumsum(values, dtype=np.float64))
            first = (row[these] - rows.start) * values.shape[1]
            parts = before[first + stop[these]] - before[first + start[these]]
            sums += np.bincount(self._numbers[these], parts, len(sums))
        return sums / self._areas


def find_regions(
    result: "Segmentation", min_area: float, classes: Classes | None = None
) -> tuple[Region, ...]:
    """Finds the regions of a result; see `Segmentation.regions`."""
    if isinstance(min_area, bool) or not isinstance(min_area, numbers.Real) or not 0 <= min_area < 1:
        raise PixelClipError(
            f"min_area is {min_area!r}; expected a share of the image, at least 0 and below 1 "
            f"(100 pixels of this image are {100 / result.labels.size:.2g})"
        )
    names = dict(enumerate(result.names)) if classes is None else _chosen(result, classes)
    runs = components(result.labels)
    length = runs.stop - runs.start
    area = np.bincount(runs.component, length).astype(np.intp)
    wanted = np.isin(runs.label, np.fromiter(names, runs.label.dtype))
    # A component has runs of one label only, so these are all runs of the large components or none.
    kept = np.flatnonzero(wanted & (area[runs.component] >= max(min_area * result.labels.size, 1)))
    kept = kept[np.argsort(runs.component[kept], kind="stable")]
    component = runs.component[kept]
    begin = np.flatnonzero(np.diff(component, prepend=-1))
    if not len(begin):
        return ()
    row, start, stop, length = runs.row[kept], runs.start[kept], runs.stop[kept], length[kept]
    areas = area[component[begin]]
    box = np.stack(
        [
            np.minimum.reduceat(start, begin),
            row[begin],
            np.maximum.reduceat(stop, begin),
            np.maximum.reduceat(row, begin) + 1,
        ],
        axis=1,
    ).tolist()
    # Twice the sums, which are integers.
    x = np.add.reduceat(length * (start + stop - 1), begin) / (2 * areas)
    y = np.add.reduceat(length * row, begin) / areas
    ends = np.append(begin[1:], len(kept))
    spans = np.stack([row, start, stop], axis=1)
    labels = runs.label[kept[begin]].tolist()
    means = _Means(result, spans, np.repeat(np.arange(len(begin)), np.diff(ends, prepend=0)), areas)
    return tuple(
        Region(
            name=names[labels[i]],
            label=labels[i],
            area=int(areas[i]),
            box=tuple(box[i]),
            centroid=(float(x[i]), float(y[i])),
            _runs=spans[begin[i] : ends[i]],
            _result=result,
            _means=means,
            _number=i,
        )
        for i in np.argsort(-areas, kind="stable").tolist()
    )


def found(result: "Segmentation", min_area: float) -> dict[str, float]:
    """Finds the classes with regions of some size; see `Segmentation.found`."""
    areas: dict[str, int] = {}
    for region in find_regions(result, min_area):
        areas[region.name] = areas.get(region.name, 0) + region.area
    order = sorted(areas, key=lambda name: -areas[name])
    return {name: areas[name] / result.labels.size for name in order}


def _chosen(result: "Segmentation", classes: Classes) -> dict[int, str]:
    """Label → name of the classes that a caller chose; ``"unknown"`` is one of them."""
    several = list(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else [classes]
    labels = [find_label(name, result.names, result.unknown) for name in several]
    return {label: "unknown" if label == result.unknown else result.names[label] for label in labels}
