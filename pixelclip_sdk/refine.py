"""Makes labels follow the edges of the photo.

A cell of the model's grid is tens of pixels wide, so interpolated labels have round borders that ignore the
photo. Three steps mend this. The first two work on small arrays, whatever the size of the photo.

1. **Agreement.** Some hundred points are spread over the photo. Points of similar colour that are close to
   each other agree on a class: mean-field inference in a fully connected conditional random field (Krähenbühl
   and Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials", algorithm 1).
   Its sums over so few points are computed directly.
2. **Edges.** Around each point of a coarse grid, the probability of a class is written as a linear function
   of the photo's brightness: the coefficients of the fast guided filter (He and Sun 2015, "Fast Guided
   Filter", equations 5 and 6).
3. **Labels.** The coefficients are interpolated, and the functions evaluated at the pixels. As in
   `postprocess`, bounds tell which classes can win in a cell, and only these are evaluated.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.cells import Axis, extremes, linear
from pixelclip_sdk.image import Picture, brightness, picture_size, reduced
from pixelclip_sdk.postprocess import check_finite, covered_cells, label_dtype, labels_upsampled

__all__ = [
    "COLOUR",
    "FLAT",
    "NEGLIGIBLE",
    "STEPS",
    "TEMPERATURE",
    "WEIGHT",
    "Layout",
    "places",
    "refine_edges",
]

Float32Array = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]
LabelArray = npt.NDArray[np.uint8 | np.uint16]
UInt8Array = npt.NDArray[np.uint8]

# Chosen on the development sets: docs/adr/0017-labels-follow-edges.md.
TEMPERATURE = 0.02  # Of the softmax over cosines.
NEGLIGIBLE = 0.003  # A class is dropped if its odds against the best class are below this everywhere.
_POINTS = 320
COLOUR = 0.04 * 255  # Standard deviation of a colour channel among points that agree.
_DISTANCE = 0.13  # The same of their distance, as a fraction of the square root of the image's area.
WEIGHT = 12.0  # Of the neighbours' opinion, against the logarithm of a point's own probability.
STEPS = 2
_COEFFICIENTS = 4800  # Points of the grid of coefficients.
_LONGEST = 1024  # Points of its side: that of a strip would be so long that it takes all memory.

FLAT = 5e-4 * 255**2  # Variance of the brightness far below which a region has no edges.
# Elements of the largest temporary array: 512 kB of float32.
_PIECE = 1 << 17


class Layout(NamedTuple):
    """Sizes of the arrays between the grid and the pixels, for images of one size.

    Attributes:
        step: Distance of the coefficients in pixels. Even, so that no pixel lies on the border of two cells,
            where rounding would choose one of them; or 1.
        small: `(h, w)` of the coefficients.
        points: `(r, c)` of the points that agree.
    """

    step: int
    small: tuple[int, int]
    points: tuple[int, int]

    @classmethod
    def of(cls, size: tuple[int, int]) -> "Layout":
        """For images of a size `(H, W)`."""
        step = max(math.isqrt(size[0] * size[1] // _COEFFICIENTS) // 2 * 2, 1)
        height, width = (-(-side // step) for side in size)
        rows = min(max(round(math.sqrt(_POINTS * height / width)), 1), height)
        return cls(step, (height, width), (rows, min(max(round(_POINTS / rows), 1), width)))

    @property
    def is_strip(self) -> bool:
        """Whether the image is so long that its labels are interpolated."""
        return max(self.small) > _LONGEST

    def radius(self, spans: tuple[float, float]) -> int:
        """Radius of the filter: it looks as far as the next point of the model's grid.

        `spans` is the size of the image in distances between these points.
        """
        return max(round(math.sqrt(self.small[0] * self.small[1] / (spans[0] * spans[1]))), 1)


def refine_edges(
    logits: Float32Array,
    image: Picture,
    covered: tuple[float, float] = (1.0, 1.0),
    temperature: float = TEMPERATURE,
    *,
    with_probability: bool = False,
) -> tuple[LabelArray, Float32Array | None]:
    """Returns labels that follow the edges of the image.

    Args:
        logits: `(K, h, w)` float32, cosines at the points of the model's grid.
        image: The image, of the size `(H, W)` that the labels shall have.
        covered: Fractions `(of the height, of the width)` of the grid that the image covers, from the top
            left. The rest is padding and has no effect.
        temperature: Cosines are divided by it before the softmax.
        with_probability: Also evaluate pixels whose label is certain, for the second result.

    Returns:
        Labels `(H, W)` uint8, or uint16 with more than 255 classes; and the filtered probability of each
        pixel's label, `(H, W)` float32, 0–1, or None. Agreement makes it surer than the softmax. Without
        `with_probability`, a strip some 200 times as long as wide gets interpolated labels.

    Raises:
        BackendError: A logit is NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk.refine import refine_edges
        >>> image = np.zeros((60, 80, 3), np.uint8)
        >>> image[:, 50:] = 255
        >>> logits = np.array([[[0.3, 0.2]], [[0.1, 0.3]]], np.float32)
        >>> labels, _ = refine_edges(logits, image)  # Interpolated labels change at column 46.
        >>> int(labels[:, :50].max()), int(labels[:, 50:].min())
        (0, 1)
    """
    layout = Layout.of(picture_size(image))
    if not with_probability and layout.is_strip:
        return labels_upsampled(logits, picture_size(image), None, covered), None
    small = reduced(image, (layout.step, layout.step))
    spans = logits.shape[1] * covered[0], logits.shape[2] * covered[1]
    grid = logits[:, *covered_cells(logits.shape[1:], covered)]
    check_finite(grid)
    classes, points = _agree(grid, spans, small, layout.points, temperature)
    guide = np.asarray(small.convert("L"), np.float32)
    coefficients = _coefficients(points, guide, layout.radius(spans))
    names: LabelArray = classes.astype(label_dtype(len(logits)))
    return _evaluate(coefficients, brightness(image), layout.step, names, with_probability)


def _agree(
    grid: Float32Array,
    spans: tuple[float, float],
    small: Image.Image,
    points: tuple[int, int],
    temperature: float,
) -> tuple[IndexArray, Float32Array]:
    """Returns the classes `(k,)` that win somewhere, and their probabilities at points `(k, r, c)`.

    Args:
        grid: `(K, h, w)` cosines.
        spans: Size of the image in distances between points of the grid.
        small: The image, at any size that has as many pixels as points or more.
        points: `(r, c)`.
        temperature: Of the softmax.
    """
    odds = (grid - grid.max(axis=0)) / temperature
    classes = np.flatnonzero(odds.max(axis=(1, 2)) > math.log(NEGLIGIBLE))
    odds = np.exp(odds[classes])
    odds /= odds.sum(axis=0)
    rows, columns = points
    down, across = linear(grid.shape[1], spans[0], rows), linear(grid.shape[2], spans[1], columns)
    prior = (down @ odds @ across.T).reshape(len(classes), -1)
    affinity = _affinity(small, rows, columns)
    evidence, chance = np.log(prior + 1e-6), prior
    for _ in range(STEPS):
        # Algorithm 1: message passing, update, normalisation.
        chance = evidence + (chance @ affinity).swapaxes(0, 1).reshape(evidence.shape)
        chance -= chance.max(axis=0)
        _exp(chance)
        chance /= chance.sum(axis=0)
    winners = np.unique(chance.argmax(axis=0))
    return classes[winners], chance[winners].reshape(-1, rows, columns)


def _affinity(small: Image.Image, rows: int, columns: int) -> Float32Array:
    """Returns the weight of each point's opinion for each other point.

    The result is `(rows, points, columns)`, for the points `[row, column]` that listen. One matrix for each
    row keeps products small: numpy's library of linear algebra computes larger ones in threads of its own,
    which wait for each other while the CPU is busy.
    """
    colours = np.asarray(small.resize((columns, rows), Image.Resampling.BOX), np.float32).reshape(-1, 3)
    features = np.concatenate([colours / COLOUR, places(rows, columns, small.height / small.width)], axis=1)
    features -= features.mean(axis=0)  # Sums of squares of small numbers round less.
    halves = np.einsum("nd,nd->n", features, features) / 2
    affinity: Float32Array = features @ features.reshape(rows, columns, -1).swapaxes(1, 2)
    affinity -= halves[:, None]
    affinity -= halves.reshape(rows, 1, columns)
    _exp(affinity)
    row, column = np.divmod(np.arange(len(features)), columns)
    affinity[row, np.arange(len(features)), column] = 0
    affinity *= WEIGHT / (affinity.sum(axis=1, keepdims=True) + 1e-6)
    return affinity


def _coefficients(
    points: Float32Array, guide: Float32Array, radius: int
) -> tuple[Float32Array, Float32Array]:
    """Returns slopes and offsets `(k, h, w)` of linear functions of the guide `(h, w)`, 0–255.

    `points` are the probabilities that they stand for, `(k, r, c)`. `radius` is that of the windows.
    """
    (height, width), (_, r, c) = guide.shape, points.shape
    down, across = _window(height, radius), _window(width, radius).T

    def mean(values: Float32Array) -> Float32Array:
        return np.asarray(down @ values @ across, np.float32)

    chance = np.asarray(linear(r, r, height) @ points @ linear(c, c, width).T, np.float32)
    light, level = mean(guide), mean(chance)
    variance = mean(guide * guide)
    variance -= light * light
    np.maximum(variance, 0, out=variance)
    slope = mean(chance * guide)
    slope -= level * light
    slope /= variance + FLAT
    level -= slope * light
    return mean(slope), mean(level)


def _evaluate(
    coefficients: tuple[Float32Array, Float32Array],
    guide: UInt8Array,
    step: int,
    names: LabelArray,
    with_probability: bool,
) -> tuple[LabelArray, Float32Array | None]:
    """Returns the label of each pixel, and its probability if asked.

    Args:
        coefficients: Slopes and offsets `(k, h, w)`.
        guide: `(H, W)` brightness of the image.
        step: Distance of the coefficients in pixels.
        names: `(k,)` labels of the functions.
        with_probability: Whether to return the probabilities.
    """
    k, h, w = coefficients[0].shape
    rows, columns = _axis(h, guide.shape[0], step), _axis(w, guide.shape[1], step)
    # Corner i is point i - 1. The edges are repeated, so that the outer cells need no special case.
    slope, offset = (np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="edge") for x in coefficients)
    low, high = _bounds(slope, offset, extremes(guide, step))
    # The tolerance covers rounding errors of the interpolation.
    possible = (high >= low.max(axis=0) - 1e-6).reshape(k, -1)
    count = np.add.reduce(possible, axis=0, dtype=np.uint16)
    # Where one class is possible, the sum is its index.
    only = np.where(count == 1, np.arange(k, dtype=np.float32) @ possible, 0).astype(np.intp)
    labels = names[only].reshape(rows.cells, columns.cells).take(columns.cell, axis=1).take(rows.cell, axis=0)
    best = np.empty(guide.shape, np.float32) if with_probability else None
    cells = np.flatnonzero(np.outer(rows.filled, columns.filled).ravel() & (count > (best is None)))
    cells = cells[np.argsort(-count[cells].astype(np.int16), kind="stable")]
    pieces = max(_PIECE // (rows.block * columns.block), 1)
    for start in range(0, len(cells), pieces):
        piece = cells[start : start + pieces]
        row, column = np.divmod(piece, columns.cells)
        at = rows.place[row][:, :, None] * guide.shape[1] + columns.place[column][:, None, :]
        weights = rows.weights[row][:, :, None], columns.weights[column][:, None, :]
        corner = row * slope.shape[2] + column
        value, winner = _compete(slope, offset, corner, weights, guide.ravel()[at], possible[:, piece], names)
        labels.reshape(-1)[at] = winner
        if best is not None:
            best.reshape(-1)[at] = value
    if best is not None:
        np.clip(best, 0, 1, out=best)
    return labels, best


def _compete(
    slope: Float32Array,
    offset: Float32Array,
    corner: IndexArray,
    weights: tuple[Float32Array, Float32Array],
    guide: UInt8Array,
    possible: npt.NDArray[np.bool_],
    names: LabelArray,
) -> tuple[Float32Array, LabelArray]:
    """Returns the largest values and their labels in some cells, both `(n, b, d)`.

    Args:
        slope: `(k, r + 1, c + 1)` at the corners of all cells.
        offset: The same.
        corner: `(n,)` index of the upper left corner of each cell.
        weights: `(n, b, 1)` weights of the lower corners, and `(n, 1, d)` weights of the right corners.
        guide: `(n, b, d)` brightness.
        possible: `(k, n)` whether a class can win. The cells are in order of the number of such classes,
            largest first.
        names: `(k,)` labels.
    """
    down, across = weights
    light = guide.astype(np.float32)
    best, value, term = (np.empty(guide.shape, np.float32) for _ in range(3))
    winner = np.empty(guide.shape, names.dtype)
    cell, name = np.nonzero(possible.T)
    count = np.bincount(cell, minlength=len(corner))
    first = np.cumsum(count) - count
    for turn in range(count[0]):
        n = np.count_nonzero(count > turn)
        chosen = name[first[:n] + turn]
        at = chosen * slope[0].size + corner[:n]
        (steep, steeper), (base, more) = (
            _sides(grid, at, slope.shape[2], across[:n]) for grid in (slope, offset)
        )
        # (steep + steeper * down) * light + base + more * down
        result, part = (best if turn == 0 else value)[:n], term[:n]
        np.multiply(steeper, down[:n], out=result)
        result += steep
        result *= light[:n]
        np.multiply(more, down[:n], out=part)
        part += base
        result += part
        label = names[chosen][:, None, None]
        if turn == 0:
            winner[:] = label
        else:
            np.copyto(winner[:n], label, where=result > best[:n])
            np.maximum(best[:n], result, out=best[:n])
    return best, winner


def _sides(
    grid: Float32Array, at: IndexArray, width: int, across: Float32Array
) -> tuple[Float32Array, Float32Array]:
    """Interpolates along the upper side of cells; also returns what the lower side has more.

    `grid` has rows of `width` corners, `at` is the upper left corner `(n,)`, and `across` the weight of the
    right one `(n, 1, d)`.
    """
    flat = grid.reshape(-1)
    a, b, c, d = (flat[at + i][:, None, None] for i in (0, 1, width, width + 1))
    upper = a + (b - a) * across
    return upper, c + (d - c) * across - upper


def _bounds(
    slope: Float32Array, offset: Float32Array, extremes: tuple[Float32Array, Float32Array]
) -> tuple[Float32Array, Float32Array]:
    """Returns the lowest and the highest value that each function can have in each cell, `(k, r, c)`.

    They are those of a corner at the darkest or the brightest pixel: the value is linear in the weights of
    the corners and linear in the brightness.
    """
    corners = [
        slope[:, i : i + len(light), j : j + light.shape[1]] * light
        + offset[:, i : i + len(light), j : j + light.shape[1]]
        for light in extremes
        for i in (0, 1)
        for j in (0, 1)
    ]
    return functools.reduce(np.minimum, corners), functools.reduce(np.maximum, corners)


def _exp(values: Float32Array) -> None:
    """Replaces values by their exponentials, at least 4e-18: products of smaller ones are slow to compute."""
    np.maximum(values, -40, out=values)
    np.exp(values, out=values)


@functools.lru_cache(maxsize=16)
def _axis(points: int, pixels: int, step: int) -> Axis:
    return Axis(points, pixels / step, pixels, 1)


@functools.lru_cache(maxsize=16)
def places(rows: int, columns: int, aspect: float) -> Float32Array:
    """Positions of points over an image of an aspect, height by width: `(rows * columns, 2)` float32.

    The unit is the standard deviation of the distance of points that agree.
    """
    y = (np.arange(rows) + 0.5) * (math.sqrt(aspect) / (rows * _DISTANCE))
    x = (np.arange(columns) + 0.5) / (math.sqrt(aspect) * columns * _DISTANCE)
    return np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _window(length: int, radius: int) -> Float32Array:
    """Matrix `(length, length)` of a moving average over `2 * radius + 1` points, fewer at the ends."""
    near = np.abs(np.subtract.outer(np.arange(length), np.arange(length))) <= radius
    return np.asarray(near / near.sum(axis=1, keepdims=True), np.float32)
