"""Connected components of a label map, by runs.

A run is a stretch of equal labels in a row. A label map has some ten thousand of them and millions of pixels,
so components of runs are found many times as fast as components of pixels.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.image import strip_rows

__all__ = ["Runs", "components"]

IndexArray = npt.NDArray[np.intp]


class Runs(NamedTuple):
    """The runs of a label map in raster order; together they cover every pixel once.

    Attributes:
        row: `(R,)` the row of each run.
        start: `(R,)` its first column.
        stop: `(R,)` the column after its last.
        label: `(R,)` the label of its pixels.
        component: `(R,)` the number of its component, from 0, in the raster order of their first pixels.
    """

    row: IndexArray
    start: IndexArray
    stop: IndexArray
    label: npt.NDArray[np.uint8 | np.uint16]
    component: IndexArray


def components(labels: npt.NDArray[np.uint8 | np.uint16]) -> Runs:
    """Finds the runs of a label map and the components that they form.

    Pixels belong to one component if a path leads from one to the other over pixels of the same label that
    share a side (4-connectivity).

    Args:
        labels: `(H, W)`, at least one pixel.

    Examples:
        >>> import numpy as np
        >>> components(np.array([[1, 1, 0], [0, 1, 0]], np.uint8)).component.tolist()
        [0, 1, 2, 0, 1]
    """
    width = labels.shape[1]
    # The first pixel of each run. In strips, whose temporary arrays are small.
    parts = [_firsts(labels[rows]) + rows.start * width for rows in strip_rows(*labels.shape)]
    first = np.concatenate(parts)
    label = labels.reshape(-1)[first]
    row = first // width
    start = first - row * width
    stop = np.append(first[1:], labels.size) - row * width
    return Runs(row, start, stop, label, _joined(first, label, labels.size, width))


def _firsts(labels: npt.NDArray[np.unsignedinteger]) -> IndexArray:
    """Indices of the pixels that begin a row, or have another label than the pixel on their left."""
    change = np.empty(labels.shape, bool)
    change[:, 0] = True
    np.not_equal(labels[:, 1:], labels[:, :-1], out=change[:, 1:])
    return np.flatnonzero(change)


def _joined(first: IndexArray, label: npt.NDArray[np.unsignedinteger], size: int, width: int) -> IndexArray:
    """Returns the number of the component of each run."""
    lower, upper = _neighbours(first, size, width)
    same = label[lower] == label[upper]
    lower, upper = lower[same], upper[same]
    # Each run hangs on its first neighbour above. That gives trees, and most components are whole.
    new = np.append(True, lower[1:] != lower[:-1])[: len(lower)]
    parent = np.arange(len(first))
    parent[lower[new]] = upper[new]
    parent = _roots(parent)
    # The other pairs join trees: the later root hangs on the earlier one, until no pair has two roots.
    lower, upper = lower[~new], upper[~new]
    while True:
        one, other = parent[lower], parent[upper]
        apart = one != other
        if not apart.any():
            break
        lower, upper, one, other = lower[apart], upper[apart], one[apart], other[apart]
        np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
        parent = _roots(parent)
    return np.cumsum(parent == np.arange(len(first)))[parent] - 1


def _neighbours(first: IndexArray, size: int, width: int) -> tuple[IndexArray, IndexArray]:
    """All pairs of runs that touch from row to row: `(lower, upper)`, both `(P,)`, ascending in `lower`."""
    # The runs above the first pixel and above the last pixel of each run.
    above = np.searchsorted(first, first - width, side="right") - 1
    after = np.append(first[1:], size) - width
    last = np.append(above[1:], np.searchsorted(first, size - width, side="right") - 1)
    last -= first[last] == after
    count = np.where(above < 0, 0, last - above + 1)
    lower = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(lower)) - np.repeat(np.cumsum(count) - count, count)
    return lower, above[lower] + offset


def _roots(parent: IndexArray) -> IndexArray:
    """Follows the parents of each run to the run that is its own parent."""
    while True:
        following = parent[parent]
        if (following == parent).all():
            return parent
        parent = following
