"""Grid logits → labels and scores at the picture's size.

The logits are interpolated bilinearly (half-pixel centres, as PyTorch's `interpolate` with
``align_corners=False``) and only then compared, so that borders are as fine as the picture. The
`K × H × W` array of the textbook is never held, and most of it is never computed: inside a cell of four
grid points an interpolated logit is a convex combination of the four, so a class whose best corner is
below another's worst corner cannot win there. What is left is one or two classes in most cells.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import BackendError

__all__ = [
    "argmax_upsampled",
    "covered_cells",
    "label_dtype",
    "labels_upsampled",
    "scores_upsampled",
    "unknown_label",
]

Float32Array = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]
LabelArray = npt.NDArray[np.uint8 | np.uint16]


def label_dtype(count: int) -> type[np.uint8] | type[np.uint16]:
    """Smallest dtype that holds `count` labels and the unknown one."""
    return np.uint8 if count <= 255 else np.uint16


def unknown_label(count: int) -> int:
    """The label of pixels that no class explains: 255, or 65535 beyond 255 classes."""
    return int(np.iinfo(label_dtype(count)).max)


def labels_upsampled(
    logits: Float32Array,
    size: tuple[int, int],
    threshold: float | None = None,
    covered: tuple[float, float] = (1.0, 1.0),
) -> LabelArray:
    """Best class of every pixel.

    Without a threshold half the work of `argmax_upsampled`: where one class alone can win, nothing is
    interpolated.

    Args:
        logits: `(K, h, w)` float32.
        size: Wanted `(H, W)`.
        threshold: Pixels whose best logit is below it become unknown; None for none.
        covered: Share of the grid, from its top left, that the picture covers; the rest is padding.

    Returns:
        Labels `(H, W)`, uint8 or (beyond 255 classes) uint16: those of `argmax_upsampled`.

    Raises:
        BackendError: A logit is NaN.
    """
    if threshold is not None:
        return argmax_upsampled(logits, size, threshold, covered)[0]
    grid, rows, columns = _cells(logits, size, covered)
    labels = np.empty(size, label_dtype(len(logits)))
    for start, stop in _pieces(rows, columns, len(logits)):
        piece, corners = rows.pixels(start, stop), grid.corners(start, stop)
        found = _candidates(corners)
        first = found.classes[found.first].astype(labels.dtype).reshape(-1, columns.cells)
        part = first.take(columns.cell, axis=1).take(rows.cell[piece] - start, axis=0)
        contested = found.order[: np.count_nonzero(found.sizes > 1)]
        row, column = np.divmod(contested, columns.cells)
        seen = rows.filled[start + row] & columns.filled[column]
        contested, row, column = contested[seen], row[seen], column[seen]
        if len(contested):
            weights = rows.weights[start:stop], columns.weights
            _, winner = _compete(corners, weights, found, contested, labels.dtype)
            at = (rows.place[start + row] - piece.start)[:, :, None] * size[1]
            part.reshape(-1)[at + columns.place[column][:, None, :]] = winner
        labels[piece] = part
    return labels


def argmax_upsampled(
    logits: Float32Array,
    size: tuple[int, int],
    threshold: float | None = None,
    covered: tuple[float, float] = (1.0, 1.0),
) -> tuple[LabelArray, Float32Array]:
    """Best class of every pixel, and its interpolated logit.

    Args:
        logits: `(K, h, w)` float32.
        size: Wanted `(H, W)`.
        threshold: Pixels whose best logit is below it become unknown; None for none.
        covered: Share of the grid, from its top left, that the picture covers; the rest is padding.

    Returns:
        Labels `(H, W)`, uint8 or (beyond 255 classes) uint16, and scores `(H, W)` float32. Among equal
        logits the first class wins.

    Raises:
        BackendError: A logit is NaN.
    """
    grid, rows, columns = _cells(logits, size, covered)
    labels = np.empty(size, label_dtype(len(logits)))
    scores = np.empty(size, np.float32)
    for start, stop in _pieces(rows, columns, len(logits)):
        piece, corners = rows.pixels(start, stop), grid.corners(start, stop)
        found = _candidates(corners)
        weights = rows.weights[start:stop], columns.weights
        best, winner = _compete(corners, weights, found, found.order, labels.dtype)
        place = np.empty_like(found.order)  # Of each cell in `best` and `winner`.
        place[found.order] = np.arange(len(place))
        across = place.reshape(-1, columns.cells).take(columns.cell, axis=1)
        across = across * (rows.block * columns.block) + columns.offset
        index = across[rows.cell[piece] - start]
        index += rows.offset[piece, None] * columns.block
        best.take(index, out=scores[piece], mode="clip")  # Only with a mode is `out` written directly.
        winner.take(index, out=labels[piece], mode="clip")
    if threshold is not None:
        labels[scores < threshold] = unknown_label(len(logits))
    return labels, scores


def scores_upsampled(
    logits: Float32Array, size: tuple[int, int], covered: tuple[float, float] = (1.0, 1.0)
) -> Float32Array:
    """The scores alone of `argmax_upsampled`."""
    return argmax_upsampled(logits, size, covered=covered)[1]


def covered_cells(grid: tuple[int, ...], covered: tuple[float, float]) -> tuple[slice, slice]:
    """The rows and columns of a grid `(h, w)` that the picture reaches into; the others are padding alone."""
    rows, columns = (slice(math.ceil(n * share - 1e-6)) for n, share in zip(grid, covered, strict=True))
    return rows, columns


def _cells(
    logits: Float32Array, size: tuple[int, int], covered: tuple[float, float]
) -> tuple["_Grid", "_Axis", "_Axis"]:
    """The cells: logits at their corners, and how pixels fall into them."""
    spans = logits.shape[1] * covered[0], logits.shape[2] * covered[1]
    # Nothing of the padding is mixed in at the picture's edge.
    logits = logits[:, *covered_cells(logits.shape[1:], covered)]
    parts = _parts(logits.shape, size)
    rows = _Axis(logits.shape[1], spans[0], size[0], parts)
    columns = _Axis(logits.shape[2], spans[1], size[1], parts)
    return _Grid(logits, parts), rows, columns


class _Grid:
    """Logits at the cells' corners, classes last: they are compared.

    A few rows at a time: all of them would be two more copies of the logits. Where cells are cut into parts
    there are fewer values than pixels (see `_parts`), and all are made at once.

    Args:
        logits: `(K, h, w)`.
        parts: Into how many parts the sides of cells are cut.
    """

    def __init__(self, logits: Float32Array, parts: int) -> None:
        self._logits, self._whole = logits, None
        if parts > 1:
            count, rows, columns = logits.shape
            whole = _corners(rows, parts) @ self.corners(0, rows + 1).reshape(rows + 2, -1)
            self._whole = _corners(columns, parts) @ whole.reshape(len(whole), -1, count)

    def corners(self, start: int, stop: int) -> Float32Array:
        """`(stop - start + 1, columns + 1, K)`, those of the rows of cells `[start, stop)`."""
        if self._whole is not None:
            return self._whole[start : stop + 1]
        count, height, width = self._logits.shape
        wide = np.empty((count, stop - start + 1, width + 2), np.float32)
        # Corner i is grid point i - 1. Repeated edges turn the clamping at the borders into ordinary cells.
        first, last = max(start - 1, 0), min(stop, height)
        inner = slice(first - (start - 1), last - (start - 1))
        wide[:, inner, 1:-1] = self._logits[:, first:last]
        wide[:, : inner.start, 1:-1] = self._logits[:, :1]
        wide[:, inner.stop :, 1:-1] = self._logits[:, -1:]
        wide[:, :, 0], wide[:, :, -1] = wide[:, :, 1], wide[:, :, -2]
        return np.ascontiguousarray(wide.transpose(1, 2, 0))


def _pieces(rows: "_Axis", columns: "_Axis", count: int) -> Iterator[tuple[int, int]]:
    """Rows of cells `[start, stop)` whose arrays stay in the processor's cache."""
    largest = columns.cells * max(count, rows.block * columns.block)
    step = max(1, _PIECE // largest)
    for start in range(0, rows.cells, step):
        yield start, min(start + step, rows.cells)


# Elements of the largest temporary array: one megabyte of float32.
_PIECE = 1 << 18


def _parts(grid: tuple[int, ...], size: tuple[int, int]) -> int:
    """Into how many parts a side to cut the cells of a grid `(K, h, w)`.

    An interpolated logit is bilinear in a part of a cell just as in the whole, and in a smaller part fewer
    classes can win. But finding them costs about 8 operations a class and part, so cutting stops where that
    becomes one a pixel; and loops over less than about 16 pixels are not worth starting.
    """
    classes, rows, columns = grid
    affordable = (size[0] * size[1] / (8 * classes * (rows + 1) * (columns + 1))) ** 0.5
    return max(int(min(affordable, size[0] / (16 * rows), size[1] / (16 * columns))), 1)


def _corners(points: int, parts: int) -> Float32Array:
    """`(cells + 1, points + 2)` matrix from grid points, edges repeated, to the corners of cut cells."""
    corners = np.arange((points + 1) * parts + 1)[:, None] / parts
    weights: Float32Array = np.maximum(1 - np.abs(corners - np.arange(points + 2)), 0).astype(np.float32)
    return weights


class _Axis:
    """How the pixels along one side of the picture fall into the cells between grid points.

    Args:
        points: Grid points along the side.
        span: Length of the picture's side in distances between grid points; not above `points`.
        pixels: Pixels along the side.
        parts: Into how many cells to cut the space between two grid points.

    Attributes:
        cells: Number of cells; the outer two lie between an edge point and its repetition.
        block: Pixels of the widest cell.
        cell: `(pixels,)` cell of every pixel, ascending.
        offset: `(pixels,)` place of every pixel in its cell, from 0 to `block - 1`.
        filled: `(cells,)` whether there are pixels in a cell.
        place: `(cells, block)` pixel at every place of a filled cell; behind its last one that one again.
        weights: `(cells, block)` share of the cell's second grid point at every place.
    """

    def __init__(self, points: int, span: float, pixels: int, parts: int) -> None:
        position = ((np.arange(pixels) + 0.5) * (span / pixels) + 0.5) * parts
        self.cell = np.floor(position).astype(np.intp)
        self.cells = (points + 1) * parts
        self._starts = np.searchsorted(self.cell, np.arange(self.cells + 1))
        self.offset = np.arange(pixels) - self._starts[self.cell]
        self.block = int(self.offset.max()) + 1
        self.filled = np.diff(self._starts) > 0
        last = self._starts[1:] - 1
        self.place = np.minimum(self._starts[:-1, None] + np.arange(self.block), last[:, None])
        self.weights = (position - self.cell).astype(np.float32)[self.place]

    def pixels(self, start: int, stop: int) -> slice:
        """The pixels in the cells `[start, stop)`."""
        return slice(int(self._starts[start]), int(self._starts[stop]))


class _Candidates(NamedTuple):
    """The classes that can win in each cell.

    Attributes:
        classes: Ascending within a cell, cell after cell.
        first: `(cells,)` where each cell's begin.
        sizes: `(cells,)` how many it has.
        order: `(cells,)` the cells, those with more candidates first.
    """

    classes: IndexArray
    first: IndexArray
    sizes: IndexArray
    order: IndexArray


def _compete(
    grid: Float32Array,
    weights: tuple[Float32Array, Float32Array],
    found: _Candidates,
    cells: IndexArray,
    dtype: np.dtype[np.uint8 | np.uint16],
) -> tuple[Float32Array, LabelArray]:
    """Best logit and its class at every place of some cells.

    Args:
        grid: `(r + 1, c + 1, K)` logits at the cells' corners.
        weights: `(r, b)` share of the lower corners at the rows of a cell, `(c, d)` of the right corners at
            its columns.
        found: Who competes.
        cells: `(n,)` which cells, those with more candidates first: so those with a t-th one always lead.
        dtype: Of the labels.

    Returns:
        Best logits and labels, both `(n, b, d)`.
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
        at = corner[:n] + candidate
        top = _between(points, at, grid.shape[2], across[:n])
        bottom = _between(points, at + width, grid.shape[2], across[:n])
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


def _between(points: Float32Array, at: IndexArray, step: int, weight: Float32Array) -> Float32Array:
    """Interpolate between the points `at` and those one `step` further, for every weight `(n, d)`."""
    left = points[at]
    result: Float32Array = (points[at + step] - left)[:, None] * weight + left[:, None]
    return result


def _candidates(grid: Float32Array) -> _Candidates:
    """The classes that can win in each cell of a grid `(r + 1, c + 1, K)`."""
    high, low = np.maximum(grid[:-1], grid[1:]), np.minimum(grid[:-1], grid[1:])
    high, low = np.maximum(high[:, :-1], high[:, 1:]), np.minimum(low[:, :-1], low[:, 1:])
    # Rounding in the interpolation may exceed the corners by a few units in the last place.
    possible = (high >= low.max(axis=2, keepdims=True) - 1e-6).reshape(-1, grid.shape[2])
    count = np.count_nonzero(possible, axis=1)
    if not count.all():  # Nothing is at least as much as NaN.
        raise BackendError(
            "the engine's logits are not finite: fp16 may have overflowed. Use a model or an engine of "
            "higher precision; `export/to_onnx.py --precision fp32` makes one."
        )
    classes = np.nonzero(possible)[1]
    return _Candidates(classes, np.cumsum(count) - count, count, np.argsort(-count, kind="stable"))
