"""What the kernels need to know of a size: the weights of a resize, and the points between which pixels lie.

Computed once for a size on the CPU, in the arithmetic of Pillow and of `postprocess`: both paths agree.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.cells import Axis
from pixelclip_sdk.postprocess import covered_cells
from pixelclip_sdk.preprocess import input_size, reducing_factor, scaled_size

__all__ = ["ROWS", "Resize", "Upsample"]

ROWS = 4
"""Rows of labels that a thread of the kernel ``label`` computes."""

IntArray = npt.NDArray[np.int32]
Size = tuple[int, int]

_POINT = 22  # Bits after the point in Pillow's fixed-point numbers.


@dataclasses.dataclass(frozen=True, eq=False)
class Filter:
    """A filter of Pillow along one axis: bilinear and antialiased, unless it says otherwise.

    Attributes:
        factor: So many pixels are averaged before it.
        start: `(pixels,)` int32 first averaged pixel that each pixel of the result is made of.
        count: `(pixels,)` int32 number of them.
        weights: `(pixels, taps)` int32 their weights, with 22 bits after the point.
    """

    factor: int
    start: IntArray
    count: IntArray
    weights: IntArray

    @classmethod
    def of(cls, pixels: int, wanted: int) -> "Filter":
        """The filter from `pixels` to `wanted` pixels."""
        return cls._of(
            pixels, wanted, reducing_factor(pixels, wanted), 1, lambda x: np.maximum(1 - abs(x), 0)
        )

    @classmethod
    def box(cls, pixels: int, wanted: int) -> "Filter":
        """Pillow's box filter."""
        return cls._of(pixels, wanted, 1, 0.5, lambda x: ((x > -0.5) & (x <= 0.5)).astype(float))

    @classmethod
    def averages(cls, pixels: int, factor: int) -> "Filter":
        """Averages of `factor` pixels, and nothing after them."""
        wanted = -(-pixels // factor)
        one = np.ones(wanted, np.int32)
        return cls(factor, np.arange(wanted, dtype=np.int32), one, one[:, None] << _POINT)

    @classmethod
    def _of(
        cls,
        pixels: int,
        wanted: int,
        factor: int,
        support: float,
        shape: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    ) -> "Filter":
        """A filter whose `shape` is 0 beyond `support`, in pixels of the result or, if larger, the image."""
        there = -(-pixels // factor)
        # Pillow keeps the length in a C float.
        scale = float(np.float32(pixels / factor)) / wanted
        unit = max(scale, 1.0)
        centre = (np.arange(wanted) + 0.5) * scale
        start = np.maximum((centre - support * unit + 0.5).astype(np.int64), 0)
        stop = np.minimum((centre + support * unit + 0.5).astype(np.int64), there)
        place = start[:, None] + np.arange(math.ceil(support * unit) * 2 + 1)
        weights = shape((place - centre[:, None] + 0.5) * (1 / unit))
        weights[place >= stop[:, None]] = 0
        total = np.zeros(wanted)
        for column in weights.T:  # In Pillow's order, which decides the last bit.
            total += column
        weights /= total[:, None]
        fixed = (weights * (1 << _POINT) + 0.5).astype(np.int32)
        return cls(factor, start.astype(np.int32), (stop - start).astype(np.int32), fixed)


def _reciprocal(pixels: int) -> int:
    """Pillow's number to multiply with instead of dividing by a number of pixels, 24 bits after the point."""
    return int(np.float32(1 << 32) / np.float32(pixels << 8))


@dataclasses.dataclass(frozen=True, eq=False)
class Resize:
    """The way of a frame of one size to the model's input, equal to `preprocess.fit`, or to another size.

    Attributes:
        frame: Size `(H, W)` of the frame.
        scaled: Size of the frame within the input.
        whole: Size of the input. The rest of it is grey.
        rows: Vertical filter.
        columns: Horizontal filter.
    """

    frame: Size
    scaled: Size
    whole: Size
    rows: Filter
    columns: Filter

    @classmethod
    def of(cls, frame: Size, spec: InputSpec) -> "Resize":
        """The resize of frames of a size `(H, W)`."""
        scaled, whole = scaled_size(*frame, spec), input_size(*frame, spec)
        rows, columns = (Filter.of(n, m) for n, m in zip(frame, scaled, strict=True))
        return cls(frame, scaled, whole, rows, columns)

    @classmethod
    def reduced(cls, frame: Size, factor: int) -> "Resize":
        """Averages of squares of `factor` pixels, equal to `image.reduced`."""
        rows, columns = (Filter.averages(side, factor) for side in frame)
        size = len(rows.start), len(columns.start)
        return cls(frame, size, size, rows, columns)

    @classmethod
    def box(cls, frame: Size, size: Size) -> "Resize":
        """Pillow's resize with a box filter."""
        rows, columns = (Filter.box(n, m) for n, m in zip(frame, size, strict=True))
        return cls(frame, size, size, rows, columns)

    def reciprocals(self) -> tuple[int, int, int, int]:
        """Of a whole box, one in the last column, one in the last row and the one in the corner."""
        (high, wide), (last_high, last_wide) = (
            (self.rows.factor, self.columns.factor),
            (self.frame[0] % self.rows.factor, self.frame[1] % self.columns.factor),
        )
        whole = _reciprocal(high * wide)
        return (
            whole,
            _reciprocal(high * last_wide) if last_wide else whole,
            _reciprocal(last_high * wide) if last_high else whole,
            _reciprocal((last_high or high) * (last_wide or wide)),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
    """Between which points of the grid the pixels along one axis lie.

    Attributes:
        lower: `(pixels,)` int32 the point before each pixel.
        upper: `(pixels,)` int32 the point after it; the same one at the edges.
        weight: `(pixels,)` float32, 0–1: of the point after.
    """

    lower: IntArray
    upper: IntArray
    weight: npt.NDArray[np.float32]

    @classmethod
    def of(cls, points: int, span: float, pixels: int) -> "Points":
        """Of `pixels` pixels over `points` points; `span` is as for `cells.Axis`."""
        axis = Axis(points, span, pixels, 1)
        lower, upper = np.maximum(axis.cell - 1, 0), np.minimum(axis.cell, points - 1)
        place = np.arange(pixels) - axis.starts[axis.cell]
        return cls(lower.astype(np.int32), upper.astype(np.int32), axis.weights[axis.cell, place])


@dataclasses.dataclass(frozen=True, eq=False)
class Upsample:
    """The way from a grid to labels of one size, equal to `postprocess.labels_upsampled`."""

    rows: Points
    columns: Points

    @classmethod
    def of(cls, grid: Size, covered: tuple[float, float], size: Size) -> "Upsample":
        """From a grid `(h, w)`, of which the image covers these fractions, to `size` `(H, W)`."""
        inside: Any = covered_cells(grid, covered)
        return cls(
            *(
                Points.of(len(range(points)[part]), points * share, pixels)
                for points, part, share, pixels in zip(grid, inside, covered, size, strict=True)
            )
        )

    @classmethod
    def between(cls, points: Size, step: int, size: Size) -> "Upsample":
        """From points that are `step` pixels apart to `size` `(H, W)`, as in `refine`."""
        return cls(*(Points.of(n, pixels / step, pixels) for n, pixels in zip(points, size, strict=True)))
