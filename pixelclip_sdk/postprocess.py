"""Grid logits → labels and scores at the picture's size.

The logits are interpolated bilinearly (half-pixel centres, as PyTorch's `interpolate` with
``align_corners=False``) and only then compared, so that borders are as fine as the picture. The
`K × H × W` array of the textbook is never held: the picture is made in bands, one for each row of grid
cells, and in a band only those classes are interpolated that can win somewhere in it.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["argmax_upsampled", "label_dtype", "unknown_label"]

Float32Array = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.uint8 | np.uint16]


def label_dtype(count: int) -> type[np.uint8] | type[np.uint16]:
    """Smallest dtype that holds `count` labels and the unknown one."""
    return np.uint8 if count <= 255 else np.uint16


def unknown_label(count: int) -> int:
    """The label of pixels that no class explains: 255, or 65535 beyond 255 classes."""
    return int(np.iinfo(label_dtype(count)).max)


def argmax_upsampled(
    logits: Float32Array, size: tuple[int, int], threshold: float | None = None
) -> tuple[LabelArray, Float32Array]:
    """Best class of every pixel, and its interpolated logit.

    Args:
        logits: `(K, h, w)` float32.
        size: Wanted `(H, W)`.
        threshold: Pixels whose best logit is below it become unknown; None for none.

    Returns:
        Labels `(H, W)`, uint8 or (beyond 255 classes) uint16, and scores `(H, W)` float32. Among equal
        logits the first class wins.
    """
    count, rows, columns = logits.shape
    height, width = size
    top, y_weight = _taps(rows, height)
    right = _matrix(columns, width)
    labels = np.empty(size, label_dtype(count))
    scores = np.empty(size, np.float32)
    candidates = _candidates(logits)
    starts = np.searchsorted(top, np.arange(len(candidates) + 1))
    for cell, classes in enumerate(candidates):
        band = slice(starts[cell], starts[cell + 1])
        if band.start == band.stop:
            continue
        weight = y_weight[band, None, None]
        below = min(cell + 1, rows - 1)
        # (rows of the band, classes, columns): first down the picture, then across it.
        mixed = logits[classes, cell] * (1 - weight) + logits[classes, below] * weight
        _argmax_band(mixed @ right, classes, labels[band], scores[band])
    if threshold is not None:
        labels[scores < threshold] = unknown_label(count)
    return labels, scores


def _argmax_band(
    values: Float32Array, classes: npt.NDArray[np.intp], labels: LabelArray, scores: Float32Array
) -> None:
    """Argmax of `(rows, classes, W)` over the classes, into `labels` and `scores` `(rows, W)`."""
    # A running maximum is several times faster than np.argmax over a middle axis.
    scores[:] = values[:, 0]
    labels[:] = classes[0]
    for i in range(1, len(classes)):
        better = values[:, i] > scores
        np.copyto(labels, labels.dtype.type(classes[i]), where=better)
        np.maximum(scores, values[:, i], out=scores)


def _candidates(logits: Float32Array) -> list[npt.NDArray[np.intp]]:
    """For every row of grid cells, the classes that can win in it, in ascending order.

    Inside a cell the interpolated logit is a convex combination of the cell's four corners, so a class
    whose best corner is below another's worst corner cannot win there.
    """
    across_max, across_min = logits, logits
    if logits.shape[2] > 1:
        across_max = np.maximum(logits[:, :, :-1], logits[:, :, 1:])
        across_min = np.minimum(logits[:, :, :-1], logits[:, :, 1:])
    rows = logits.shape[1]
    result = []
    for cell in range(rows):
        below = min(cell + 1, rows - 1)
        best = np.maximum(across_max[:, cell], across_max[:, below])
        bar = np.minimum(across_min[:, cell], across_min[:, below]).max(axis=0)
        # Rounding in the interpolation may exceed the corners by a few units in the last place.
        result.append(np.flatnonzero((best >= bar - 1e-6).any(axis=1)))
    return result


def _taps(source: int, target: int) -> tuple[npt.NDArray[np.intp], Float32Array]:
    """First of the two source samples under every target sample, and the weight of the second."""
    position = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    first = np.floor(position).astype(np.intp)
    return first, (position - first).astype(np.float32)


def _matrix(source: int, target: int) -> Float32Array:
    """Bilinear interpolation as a `(source, target)` matrix: BLAS applies it faster than gathers."""
    first, weight = _taps(source, target)
    matrix = np.zeros((source, target), np.float32)
    index = np.arange(target)
    matrix[first, index] = 1 - weight
    matrix[np.minimum(first + 1, source - 1), index] += weight
    return matrix
