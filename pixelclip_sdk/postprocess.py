"""Upsamples logits of the model's grid to labels and scores at the size of the image.

The logits are interpolated bilinearly (half-pixel centres, like PyTorch's `interpolate` with
``align_corners=False``), and the class with the largest one is the label. The straightforward way computes
`K × H × W` values. This module computes only a small part of them: in a cell between four grid points, an
interpolated logit is a convex combination of the four. A class whose largest corner is below the smallest
corner of another class cannot win anywhere in the cell. In most cells, only one or two classes remain.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.cells import Axis
from pixelclip_sdk.errors import BackendError

__all__ = [
    "argmax_upsampled",
    "check_finite",
    "covered_cells",
    "label_dtype",
    "labels_upsampled",
    "unknown_label",
]

Float32Array = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]
LabelArray = npt.NDArray[np.uint8 | np.uint16]

# Elements of the largest temporary array: 1 MB of float32, which fits the cache of the CPU.
_PIECE = 1 << 18


def label_dtype(count: int) -> type[np.uint8] | type[np.uint16]:
    """The dtype of labels: uint8 for up to 255 classes, else uint16."""
    return np.uint8 if count <= 255 else np.uint16


def unknown_label(count: int) -> int:
    """The label of pixels below the threshold: 255, or 65535 with more than 255 classes."""
    return int(np.iinfo(label_dtype(count)).max)


def labels_upsampled(
    logits: Float32Array,
    size: tuple[int, int],
    threshold: float | None = None,
    covered: tuple[float, float] = (1.0, 1.0),
) -> LabelArray:
    """Returns the best class of every pixel.

    Args:
        logits: `(K, h, w)` float32.
        size: `(H, W)` of the labels.
        threshold: Pixels whose best logit is below it become unknown. Without one, cells with a single
            possible class need no interpolation, which halves the time.
        covered: Fractions `(of the height, of the width)` of the grid that the image covers, from the top
            left. The rest is padding and has no effect.

    Returns:
        `(H, W)` uint8, or uint16 with more than 255 classes. Of equal logits, the first class wins.

    Raises:
        BackendError: A logit is NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> logits = np.array([[[0.1, 0.3]], [[0.2, 0.2]]], np.float32)  # two classes, a grid of 1×2
        >>> labels_upsampled(logits, (1, 4)).tolist()
        [[1, 1, 0, 0]]
    """
    return _upsample(logits, size, covered, None, threshold)


def argmax_upsampled(
    logits: Float32Array,
    size: tuple[int, int],
    threshold: float | None = None,
    covered: tuple[float, float] = (1.0, 1.0),
) -> tuple[LabelArray, Float32Array]:
    """Returns the labels of `labels_upsampled` and their interpolated logits, `(H, W)` float32."""
    scores = np.empty(size, np.float32)
    return _upsample(logits, size, covered, scores, threshold), scores


def scores_in_strips(
    logits: Float32Array, size: tuple[int, int], covered: tuple[float, float] = (1.0, 1.0)
) -> Iterator[tuple[slice, Float32Array]]:
    """Yields rows, and the interpolated logits of `argmax_upsampled` in them, from top to bottom."""
    grid = _Grid(logits, size, covered)
    for start, stop, rows in grid.pieces():
        shape = rows.stop - rows.start, size[1]
        scores = np.empty(shape, np.float32)
        _fill(grid, start, stop, np.empty(shape, label_dtype(len(logits))), scores)
        yield rows, scores


def _upsample(
    logits: Float32Array,
    size: tuple[int, int],
    covered: tuple[float, float],
    scores: Float32Array | None,
    threshold: float | None,
) -> LabelArray:
    """Returns the best class of every pixel, and writes the best logits to `scores` if it is an array."""
    grid = _Grid(logits, size, covered)
    labels = np.empty(size, label_dtype(len(logits)))
    for start, stop, rows in grid.pieces():
        part = labels[rows]
        best_of = scores[rows] if scores is not None else None
        if best_of is None and threshold is not None:
            best_of = np.empty(part.shape, np.float32)
        _fill(grid, start, stop, part, best_of)
        if best_of is not None and threshold is not None:
            part[best_of < threshold] = unknown_label(len(logits))
    return labels


def _fill(grid: "_Grid", start: int, stop: int, part: LabelArray, best_of: Float32Array | None) -> None:
    """Writes the labels of the rows of cells `[start, stop)`, and the best logits if they are wanted."""
    rows, columns = grid.rows, grid.columns
    corners = grid.corners(start, stop)
    found = _candidates(corners)
    cells = found.order
    piece = slice(*rows.starts[[start, stop]].tolist())
    if best_of is None:  # Cells with one candidate are filled with it.
        first = found.classes[found.first].astype(part.dtype).reshape(-1, columns.cells)
        part[:] = first.take(columns.cell, axis=1).take(rows.cell[piece] - start, axis=0)
        cells = cells[: np.count_nonzero(found.sizes > 1)]
    row, column = np.divmod(cells, columns.cells)
    seen = rows.filled[start + row] & columns.filled[column]
    cells, row, column = cells[seen], row[seen], column[seen]
    if len(cells):
        weights = rows.weights[start:stop], columns.weights
        best, winner = _compete(corners, weights, found, cells, part.dtype)
        at = (rows.place[start + row] - piece.start)[:, :, None] * part.shape[1]
        at = at + columns.place[column][:, None, :]
        part.reshape(-1)[at] = winner
        if best_of is not None:
            best_of.reshape(-1)[at] = best


def covered_cells(grid: tuple[int, ...], covered: tuple[float, float]) -> tuple[slice, slice]:
    """Slices of the rows and columns of a grid `(h, w)` that contain any part of the image."""
    rows, columns = (slice(math.ceil(n * share - 1e-6)) for n, share in zip(grid, covered, strict=True))
    return rows, columns


def check_finite(logits: Float32Array) -> None:
    """Raises BackendError if a logit is NaN or infinite."""
    if not (math.isfinite(logits.min()) and math.isfinite(logits.max())):  # They pass NaN through.
        raise BackendError(
            "the logits of the engine are not finite; fp16 may have overflowed. Use a model or an engine "
            "of higher precision, for example from `export/to_onnx.py --precision fp32`."
        )


class _Grid:
    """Divides the grid into cells: the pixels inside them, and the logits at their corners.

    The corners are computed for a few rows at a time, because all of them would take twice the memory of the
    logits. If the sides of cells are divided into parts, there are fewer corners than pixels (see `_parts`),
    and all are computed at once.
    """

    def __init__(self, logits: Float32Array, size: tuple[int, int], covered: tuple[float, float]) -> None:
        spans = logits.shape[1] * covered[0], logits.shape[2] * covered[1]
        # Without the padding, which must not be interpolated into the edge of the image.
        logits = logits[:, *covered_cells(logits.shape[1:], covered)]
        check_finite(logits)
        parts = _parts(logits.shape, size)
        count, height, width = logits.shape
        self.rows, self.columns = (
            Axis(height, spans[0], size[0], parts),
            Axis(width, spans[1], size[1], parts),
        )
        self._logits, self._whole = logits, None
        if parts > 1:
            whole = _corners(height, parts) @ self.corners(0, height + 1).reshape(height + 2, -1)
            self._whole = _corners(width, parts) @ whole.reshape(len(whole), -1, count)

    def pieces(self) -> Iterator[tuple[int, int, slice]]:
        """Yields rows of cells `[start, stop)` that fit the cache together, and their rows of pixels."""
        rows, columns = self.rows, self.columns
        classes = len(self._logits)
        step = max(1, _PIECE // (columns.cells * max(classes, rows.block * columns.block)))
        for start in range(0, rows.cells, step):
            stop = min(start + step, rows.cells)
            yield start, stop, slice(*rows.starts[[start, stop]].tolist())

    def corners(self, start: int, stop: int) -> Float32Array:
        """Corners of the rows of cells `[start, stop)`: `(stop - start + 1, columns + 1, K)`."""
        if self._whole is not None:
            return self._whole[start : stop + 1]
        # Corner i is grid point i - 1. The edges are repeated, so that the outer cells need no special case.
        height = self._logits.shape[1]
        inner = self._logits[:, max(start - 1, 0) : min(stop, height)]
        wide = np.pad(inner, ((0, 0), (int(start == 0), int(stop > height)), (1, 1)), mode="edge")
        return np.ascontiguousarray(wide.transpose(1, 2, 0))


def _parts(grid: tuple[int, ...], size: tuple[int, int]) -> int:
    """Returns the number of parts to divide each side of the cells of a grid `(K, h, w)` into.

    Fewer classes can win in a part of a cell, and interpolation within it is still bilinear. Finding these
    classes takes about 8 operations for each class and part. The number of parts is limited so that this is
    at most one operation for each pixel, and so that a part is at least 16 pixels wide.
    """
    classes, rows, columns = grid
    affordable = (size[0] * size[1] / (8 * classes * (rows + 1) * (columns + 1))) ** 0.5
    return max(int(min(affordable, size[0] / (16 * rows), size[1] / (16 * columns))), 1)


def _corners(points: int, parts: int) -> Float32Array:
    """Interpolation matrix from grid points with repeated edges to corners: `(cells + 1, points + 2)`."""
    corners = np.arange((points + 1) * parts + 1)[:, None] / parts
    weights: Float32Array = np.maximum(1 - np.abs(corners - np.arange(points + 2)), 0).astype(np.float32)
    return weights


class _Candidates(NamedTuple):
    """The classes that can win in each cell."""

    classes: IndexArray  # Class indices of all cells in one array, ascending within a cell.
    first: IndexArray  # `(cells,)` index in `classes` of the first candidate of each cell.
    sizes: IndexArray  # `(cells,)` number of candidates of each cell.
    order: IndexArray  # `(cells,)` indices of the cells, by descending number of candidates.


def _compete(
    grid: Float32Array,
    weights: tuple[Float32Array, Float32Array],
    found: _Candidates,
    cells: IndexArray,
    dtype: np.dtype[np.uint8 | np.uint16],
) -> tuple[Float32Array, LabelArray]:
    """Interpolates the candidates of some cells; returns the best logits and labels, both `(n, b, d)`.

    Args:
        grid: `(r + 1, c + 1, K)` logits at the corners of the cells.
        weights: `(r, b)` weights of the lower corners in each row of a cell, and `(c, d)` weights of the
            right corners in each column.
        found: The candidates of all cells.
        cells: `(n,)` indices of the cells, by descending number of candidates.
        dtype: dtype of the labels.
    """
    row, column = np.divmod(cells, len(weights[1]))
    down, across = weights[0][row][:, :, None], weights[1][column]
    points, width = grid.reshape(-1), grid.shape[1] * grid.shape[2]
    corner = (row * grid.shape[1] + column) * grid.shape[2]
    first, count = found.first[cells], found.sizes[cells]
    shape = (len(cells), down.shape[1], across.shape[1])
    best, other = np.empty(shape, np.float32), np.empty(shape, np.float32)
    winner = np.empty(shape, dtype)
    for turn in range(count.max()):
        n = np.count_nonzero(count > turn)
        candidate = found.classes[first[:n] + turn]
        at = corner[:n] + candidate + np.array([[0], [width]])  # Of the upper and the lower corner.
        left, right = points[at][:, :, None], points[at + grid.shape[2]][:, :, None]
        top, bottom = (right - left) * across[:n] + left
        values = best if turn == 0 else other[:n]
        np.multiply((bottom - top)[:, None, :], down[:n], out=values)
        values += top[:, None, :]
        name = candidate.astype(dtype)[:, None, None]
        if turn == 0:
            winner[:] = name
        else:
            np.copyto(winner[:n], name, where=values > best[:n])
            np.maximum(best[:n], values, out=best[:n])
    return best, winner


def _candidates(grid: Float32Array) -> _Candidates:
    """Finds the classes that can win in each cell of a grid `(r + 1, c + 1, K)`."""
    high, low = np.maximum(grid[:-1], grid[1:]), np.minimum(grid[:-1], grid[1:])
    high, low = np.maximum(high[:, :-1], high[:, 1:]), np.minimum(low[:, :-1], low[:, 1:])
    # The tolerance covers rounding errors of the interpolation.
    possible = (high >= low.max(axis=2, keepdims=True) - 1e-6).reshape(-1, grid.shape[2])
    count = np.count_nonzero(possible, axis=1)
    classes = np.nonzero(possible)[1]
    return _Candidates(classes, np.cumsum(count) - count, count, np.argsort(-count, kind="stable"))
