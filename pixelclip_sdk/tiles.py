"""Large pictures: overlapping windows of the model's input size, blended into one grid of logits.

A picture is shrunk to the model's input, so a small thing in a large picture may be smaller than a cell of
the grid. With tiles, the picture is scaled to a canvas larger than the input, and the model sees the canvas
through windows. The logits of the canvas are the mean over the windows, each weighted by the distance to its
border. They are averaged with the logits of the whole picture, which has the surroundings that a window
lacks.
"""

import dataclasses
import math
import numbers
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.image import Picture
from pixelclip_sdk.preprocess import covered, fit, input_size

__all__ = ["CONTEXT", "MAX_TILES", "Tiles", "View", "checked_tiles", "interpolation"]

Float32Array = npt.NDArray[np.float32]
Size = tuple[int, int]

Tiles = int | Literal["auto"]
"""The largest number of windows. ``"auto"``: as many as it takes to shrink the picture by a factor of at most
4, which is one window for photos and video of up to about 1080p."""

MAX_TILES = 64
_AUTO_SHRINK = 4
# Overlap of neighbouring windows, as a share of a window's side.
_OVERLAP = 0.25
# Share of the whole picture's logits in the mean; docs/adr/0021 compares values.
CONTEXT = 0.3


def checked_tiles(value: Tiles) -> Tiles:
    """Return `value`, or raise PixelClipError if it is neither ``"auto"`` nor a whole number from 1 to 64."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value != "auto" and not (whole and 1 <= int(value) <= MAX_TILES):
        raise PixelClipError(f'tiles is {value!r}; expected "auto" or a number of windows, 1 to {MAX_TILES}')
    return value


class View:
    """How a model sees a picture of one size: whole, or whole and through windows.

    The memory is bounded: the windows are views of one canvas, which has at most the pixels of 64 inputs.

    Args:
        size: Size `(H, W)` of the picture.
        spec: The input sizes of the model.
        tiles: The largest number of windows; see `Tiles`.

    Attributes:
        windows: Top left corners `(y, x)` of the windows in the canvas, by rows; empty without windows.
        covered: Fractions `(of the height, of the width)` of the grid that the picture covers.

    Examples:
        >>> from pixelclip_sdk.bundle import InputSpec
        >>> spec = InputSpec(height=352, width=448, multiple=32, fixed=False, keep_aspect=True)
        >>> len(View((1080, 1920), spec, "auto").windows), len(View((2160, 3840), spec, "auto").windows)
        (0, 4)
    """

    def __init__(self, size: Size, spec: InputSpec, tiles: Tiles) -> None:
        self._spec, self._unit = spec, spec.multiple
        self._window = input_size(*size, spec)
        self._canvas = self._canvas_for(size, tiles)
        rows, columns = self._starts = [
            _starts(length, side, self._unit) for length, side in zip(self._canvas, self._window, strict=True)
        ]
        self.windows = [(y, x) for y in rows for x in columns] if len(rows) * len(columns) > 1 else []
        self._share = covered(size, spec)
        self.covered = (1.0, 1.0) if self.windows else self._share

    def inputs(self, picture: Picture) -> list[npt.NDArray[np.uint8]]:
        """Return the model's inputs, each `(h, w, 3)` uint8 RGB: the whole picture, then the windows."""
        whole = fit(picture, self._spec)
        if not self.windows:
            return [whole]
        height, width = self._canvas
        spec = dataclasses.replace(self._spec, height=height, width=width, fixed=True, keep_aspect=False)
        canvas, (h, w) = fit(picture, spec), self._window
        return [whole, *(canvas[y : y + h, x : x + w] for y, x in self.windows)]

    def blend(self, grids: Sequence[Float32Array], context: float = CONTEXT) -> Float32Array:
        """Return the logits of the picture.

        Args:
            grids: The logits `(K, g, g')` float32 of each of `inputs`, in their order.
            context: Share of the whole picture's logits in the mean, 0–1.

        Returns:
            `(K, h, w)` float32; `grids[0]` without windows. The grid is as fine as a window's.
        """
        if not self.windows:
            return grids[0]
        rows, columns = [
            _Axis(length, side, cells, starts, share)
            for length, side, cells, starts, share in zip(
                self._canvas, self._window, grids[0].shape[1:], self._starts, self._share, strict=True
            )
        ]
        total = rows.context @ (grids[0] * np.float32(context)) @ columns.context.T
        places = [(row, column) for row in rows.windows for column in columns.windows]
        for ((inside_y, down), (inside_x, across)), grid in zip(places, grids[1:], strict=True):
            total[:, inside_y, inside_x] += down @ (grid * np.float32(1 - context)) @ across.T
        return total

    def _canvas_for(self, size: Size, tiles: Tiles) -> Size:
        """Return the size of the canvas, which is that of a window if one is enough."""
        if tiles == "auto":
            scale = 1 / _AUTO_SHRINK
            while self._count(canvas := self._scaled(size, scale)) > MAX_TILES:
                scale *= 0.95
            return canvas
        # The largest scale at which some number of rows and columns of windows covers the picture.
        scales = []
        for rows in range(1, tiles + 1):
            longest = [
                n * side - (n - 1) * _overlap(side, self._unit)
                for n, side in zip((rows, tiles // rows), self._window, strict=True)
            ]
            scales.append(min(length / side for length, side in zip(longest, size, strict=True)))
        return self._scaled(size, max(scales))

    def _scaled(self, size: Size, scale: float) -> Size:
        """Return a scaled size, rounded down to multiples of the unit, and no smaller than a window."""
        height, width = (
            max(int(length * scale / self._unit + 1e-9) * self._unit, side)
            for length, side in zip(size, self._window, strict=True)
        )
        return height, width

    def _count(self, canvas: Size) -> int:
        sides = zip(canvas, self._window, strict=True)
        return math.prod(len(_starts(length, side, self._unit)) for length, side in sides)


class _Axis:
    """One side of the canvas: where the grid points of the windows and of the whole picture go.

    Attributes:
        windows: For each window the grid points of the canvas inside it, and the matrix `(points, cells)`
            that interpolates and weights its logits. At every point, all weights add up to 1.
        context: The matrix `(points, cells)` that interpolates the logits of the whole picture.
    """

    def __init__(self, length: int, side: int, cells: int, starts: Sequence[int], share: float) -> None:
        count = round(length * cells / side)
        points = (np.arange(count) + 0.5) * length / count  # In pixels of the canvas.
        ramps = [np.minimum(points - start, start + side - points) / (side * _OVERLAP) for start in starts]
        weights = np.clip(ramps, 0, 1)
        weights /= weights.sum(axis=0)
        self.windows = []
        for start, weight in zip(starts, weights, strict=True):
            inside = slice(*np.searchsorted(points, [start, start + side]).tolist())
            matrix = interpolation(cells, (points[inside] - start) * cells / side - 0.5)
            self.windows.append((inside, matrix * weight[inside, None].astype(np.float32)))
        seen = math.ceil(cells * share - 1e-6)  # The other cells hold only padding.
        self.context = np.zeros((count, cells), np.float32)
        self.context[:, :seen] = interpolation(seen, points / length * cells * share - 0.5)


def interpolation(points: int, positions: npt.NDArray[np.floating]) -> Float32Array:
    """Return the `(positions, points)` matrix of a linear interpolation between `points` at 0, 1, 2, ….

    Positions outside get the value of the nearest point.
    """
    inside = np.clip(positions, 0, points - 1)
    weights: Float32Array = np.maximum(1 - np.abs(inside[:, None] - np.arange(points)), 0).astype(np.float32)
    return weights


def _overlap(side: int, unit: int) -> int:
    return round(side * _OVERLAP / unit) * unit


def _starts(length: int, side: int, unit: int) -> list[int]:
    """Return the first pixels of windows, evenly spaced at multiples of the unit, that cover a side."""
    step = max(side - _overlap(side, unit), unit)
    last = math.ceil((length - side) / step)
    return [round(i * (length - side) / max(last, 1) / unit) * unit for i in range(last + 1)]
