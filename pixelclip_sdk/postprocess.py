"""Grid logits → labels and scores at the picture's size.

The logits are interpolated bilinearly (half-pixel centres, as PyTorch's `interpolate` with
``align_corners=False``) and only then compared, so that borders are as fine as the picture. The
`K × H × W` array of the textbook is never held, and most of it is never computed: inside a cell of four
grid points an interpolated logit is a convex combination of the four, so a class whose best corner is
below another's worst corner cannot win there. What is left is one or two classes in most cells.
"""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["argmax_upsampled", "label_dtype", "unknown_label"]

Float32Array = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]
LabelArray = npt.NDArray[np.uint8 | np.uint16]


def label_dtype(count: int) -> type[np.uint8] | type[np.uint16]:
    """Smallest dtype that holds `count` labels and the unknown one."""
    return np.uint8 if count <= 255 else np.uint16


def unknown_label(count: int) -> int:
    """The label of pixels that no class explains: 255, or 65535 beyond 255 classes."""
    return int(np.iinfo(label_dtype(count)).max)


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
    """
    count = len(logits)
    spans = logits.shape[1] * covered[0], logits.shape[2] * covered[1]
    # Cells of padding alone are dropped, so that nothing of them is mixed in at the picture's edge.
    logits = logits[:, : math.ceil(spans[0] - 1e-6), : math.ceil(spans[1] - 1e-6)]
    labels = np.empty(size, label_dtype(count))
    scores = np.empty(size, np.float32)
    # Repeated edges turn the clamping at the borders into ordinary cells. Classes last: they are compared.
    grid = np.ascontiguousarray(np.pad(logits, ((0, 0), (1, 1), (1, 1)), mode="edge").transpose(1, 2, 0))
    parts = _parts(logits.shape, size)
    rows = _Axis(logits.shape[1], spans[0], size[0], parts)
    columns = _Axis(logits.shape[2], spans[1], size[1], parts)
    if parts > 1:
        grid = _corners(logits.shape[1], parts) @ grid.reshape(len(grid), -1)
        grid = _corners(logits.shape[2], parts) @ grid.reshape(len(grid), -1, count)
    # Pieces that stay in the processor's cache.
    step = max(
        1, min(_PIECE // (columns.cells * count), _PIECE // (rows.block * columns.cells * columns.block))
    )
    for start in range(0, rows.cells, step):
        stop = min(start + step, rows.cells)
        piece = slice(*np.searchsorted(rows.cell, (start, stop)))
        weights = rows.weights[start:stop], columns.weights
        best, winner, place = _blocks(grid[start : stop + 1], *weights, labels.dtype)
        across = place.take(columns.cell, axis=1) * best[0].size + columns.offset
        index = across[rows.cell[piece] - start]
        index += rows.offset[piece, None] * columns.block
        best.take(index, out=scores[piece], mode="clip")  # Only with a mode is `out` written directly.
        winner.take(index, out=labels[piece], mode="clip")
    if threshold is not None:
        labels[scores < threshold] = unknown_label(count)
    return labels, scores


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
        weights: `(cells, block)` share of the cell's second grid point at every place.
    """

    def __init__(self, points: int, span: float, pixels: int, parts: int) -> None:
        position = ((np.arange(pixels) + 0.5) * (span / pixels) + 0.5) * parts
        self.cell = np.floor(position).astype(np.intp)
        self.cells = (points + 1) * parts
        starts = np.searchsorted(self.cell, np.arange(self.cells))
        self.offset = np.arange(pixels) - starts[self.cell]
        self.block = int(self.offset.max()) + 1
        self.weights = np.zeros((self.cells, self.block), np.float32)
        self.weights[self.cell, self.offset] = position - self.cell


def _blocks(
    grid: Float32Array,
    row_weights: Float32Array,
    column_weights: Float32Array,
    dtype: np.dtype[np.uint8 | np.uint16],
) -> tuple[Float32Array, LabelArray, IndexArray]:
    """Best logit and its class at every place of every cell.

    Args:
        grid: `(r + 1, c + 1, K)` logits at the cells' corners.
        row_weights: `(r, b)` share of the lower corners at the rows of a cell.
        column_weights: `(c, d)` share of the right corners at its columns.
        dtype: Of the labels.

    Returns:
        Best logits and labels, both `(r * c, b, d)` in an order of their own, and `(r, c)` the place of each
        cell in that order.
    """
    classes, first, count = _candidates(grid)
    # Cells with more candidates come first, so that those with a t-th one are always the leading ones.
    order = np.argsort(-count, kind="stable")
    row, column = np.divmod(order, len(column_weights))
    down, across = row_weights[row][:, :, None], column_weights[column]
    points, width = grid.reshape(-1), grid.shape[1] * grid.shape[2]
    corner = (row * grid.shape[1] + column) * grid.shape[2]
    shape = (len(order), row_weights.shape[1], column_weights.shape[1])
    best, other = np.empty(shape, np.float32), np.empty(shape, np.float32)
    winner = np.empty(shape, dtype)
    for turn in range(count.max()):
        n = np.count_nonzero(count > turn)
        candidate = classes[first[order[:n]] + turn]
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
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return best, winner, place.reshape(len(row_weights), len(column_weights))


def _between(points: Float32Array, at: IndexArray, step: int, weight: Float32Array) -> Float32Array:
    """Interpolate between the points `at` and those one `step` further, for every weight `(n, d)`."""
    left = points[at]
    result: Float32Array = (points[at + step] - left)[:, None] * weight + left[:, None]
    return result


def _candidates(grid: Float32Array) -> tuple[IndexArray, IndexArray, IndexArray]:
    """The classes that can win in each cell of a grid `(r + 1, c + 1, K)`.

    Returns:
        Classes, ascending within a cell, cell after cell; where each cell's begin; how many it has.
    """
    high, low = np.maximum(grid[:-1], grid[1:]), np.minimum(grid[:-1], grid[1:])
    high, low = np.maximum(high[:, :-1], high[:, 1:]), np.minimum(low[:, :-1], low[:, 1:])
    # Rounding in the interpolation may exceed the corners by a few units in the last place.
    possible = (high >= low.max(axis=2, keepdims=True) - 1e-6).reshape(-1, grid.shape[2])
    count = np.count_nonzero(possible, axis=1)
    return np.nonzero(possible)[1], np.cumsum(count) - count, count
