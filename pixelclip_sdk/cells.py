"""Cells between the points of a grid, and the pixels inside them."""

import functools

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "extremes", "linear"]


class Axis:
    """Assigns the pixels along one axis of the image to the cells between grid points.

    `span` is the length of the image in distances between grid points, and `parts` the number of cells
    between two grid points.

    Attributes:
        cells: Number of cells. The first and the last lie between an edge point and its repetition.
        block: Number of pixels of the widest cell.
        cell: `(pixels,)` index of the cell of each pixel, ascending.
        starts: `(cells + 1,)` index of the first pixel of each cell.
        filled: `(cells,)` whether a cell contains pixels.
        place: `(cells, block)` index of the pixel at each position of a filled cell. The last pixel of a cell
            is repeated up to `block`.
        weights: `(cells, block)` interpolation weight of the second grid point at each position.
    """

    def __init__(self, points: int, span: float, pixels: int, parts: int) -> None:
        position = ((np.arange(pixels) + 0.5) * (span / pixels) + 0.5) * parts
        self.cell = np.floor(position).astype(np.intp)
        self.cells = (points + 1) * parts
        self.starts = np.searchsorted(self.cell, np.arange(self.cells + 1))
        sizes = np.diff(self.starts)
        self.filled = sizes > 0
        self.block = int(sizes.max())
        self.place = np.minimum(self.starts[:-1, None] + np.arange(self.block), self.starts[1:, None] - 1)
        self.weights = (position - self.cell).astype(np.float32)[self.place]


@functools.lru_cache(maxsize=16)
def linear(points: int, span: float, pixels: int) -> npt.NDArray[np.float32]:
    """Returns the matrix `(pixels, points)` of a linear interpolation: half-pixel centres, edges repeated.

    Equal arguments return the same array. `span` is the length of the image in distances between points.
    """
    position = np.clip((np.arange(pixels) + 0.5) * (span / pixels) - 0.5, 0, points - 1)
    weights = np.maximum(1 - np.abs(position[:, None] - np.arange(points)), 0)
    return np.asarray(weights, np.float32)


def extremes(
    image: npt.NDArray[np.uint8], step: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Returns the darkest and the brightest value in each cell of an image `(H, W)`: `(r, c)` float32."""
    # The cells begin half a step before the image. Repeated pixels complete the first and the last ones.
    before = step - step // 2
    height, width = image.shape
    rows, columns = (-(-side // step) + 1 for side in image.shape)
    starts = [min(max(i * step - before, 0), height - 1) for i in range(rows)]
    bands = [image[start : max((i + 1) * step - before, start + 1)] for i, start in enumerate(starts)]
    dark, bright = (
        functools.reduce(f, [padded[:, i::step] for i in range(step)]).astype(np.float32)
        for f in (np.minimum, np.maximum)
        for padded in [
            np.pad(
                np.stack([f.reduce(band, axis=0) for band in bands]),
                [(0, 0), (before, columns * step - before - width)],
                mode="edge",
            )
        ]
    )
    return dark, bright
