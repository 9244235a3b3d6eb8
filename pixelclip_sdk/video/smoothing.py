"""Smooths the logits of a video over time, so that labels do not flicker (docs/adr/0019).

Where the picture stays as it is, new logits are averaged with earlier ones, which are forgotten
exponentially. Where the picture changes and the logits change clearly, the new ones replace the average at
once, so that the label of a moving object is not late.
"""

import math
import numbers
from fractions import Fraction
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import PixelClipError

__all__ = ["Smooth", "Smoother", "check_smooth"]

Float32Array = npt.NDArray[np.float32]

Smooth = float | Literal["auto"] | None
"""Memory in seconds, 0 to 1; ``"auto"``: 0.3 s for frames that have a time; None or 0: no smoothing."""

AUTO_S = 0.3
"""The memory of ``smooth="auto"``, in seconds."""

_DEFAULT_FPS = 30
# Pixels along each side of a grid cell in the small grey picture that shows where the picture changes.
_CELL = 4
# Change of the grey of a cell (root mean square, of 255): still up to the first, changed from the second on.
_STILL, _CHANGED = 3.0, 12.0
# Change of the logits, in standard deviations of all logits of the frame: noise, and a clear change.
_NOISE, _CLEAR = 0.2, 0.6
# Logits depend on a neighbourhood of this share of the grid's longer side.
_NEIGHBOURHOOD = 1 / 16
# A larger share of changed cells is a cut: another scene.
_CUT = 0.75


def check_smooth(smooth: Smooth) -> None:
    """Raise PixelClipError if `smooth` is not one of the values of `Smooth`."""
    if smooth is None or smooth == "auto":
        return
    is_number = isinstance(smooth, numbers.Real) and not isinstance(smooth, bool)
    if not (is_number and 0 <= smooth <= 1):
        raise PixelClipError(f'smooth is {smooth!r}; expected seconds from 0 to 1, "auto" or None')


class Smoother:
    """Averages the logits of the frames of one source, which must come in order.

    `Segmenter.stream` makes its own. Make one for a video whose frames come one by one, as in a callback, and
    give it to `Segmenter.predict` with each of them, one call at a time.

    Starts anew when the words, the size of the picture or the scene change, and when time runs backwards.

    Args:
        smooth: The memory in seconds, 0 to 1; ``"auto"``: 0.3 for frames that have a time; 0 or None: none.
        fps: Frames per second, for frames without a time; None for 30.

    Raises:
        PixelClipError: `smooth` is not one of its values.

    Examples:
        >>> import numpy as np
        >>> still = np.zeros((64, 64, 3), np.uint8)
        >>> smoother = Smoother(0.3)
        >>> for i, cosine in enumerate([0.0, 0.1, 0.0]):
        ...     logits = np.full((1, 2, 2), cosine, np.float32)
        ...     blended = smoother.blend(logits, still, "words", index=i, time_s=0.1 * i)
        ...     print(f"{blended[0, 0, 0]:.3f}")
        0.000
        0.028
        0.020
    """

    def __init__(self, smooth: Smooth, fps: Fraction | float | None = None) -> None:
        check_smooth(smooth)
        self._needs_time = smooth == "auto"
        self._memory_s = AUTO_S if smooth == "auto" else float(smooth or 0)
        self._fps = float(fps or _DEFAULT_FPS)
        self._mean: Float32Array | None = None
        self._grey: Float32Array | None = None
        self._words: object = None
        self._time_s = 0.0
        self._index = -1

    def applies(self, time_s: float | None) -> bool:
        """Whether `blend` changes anything of frames with this time."""
        return bool(self._memory_s) and not (time_s is None and self._needs_time)

    def blend(
        self,
        logits: Float32Array,
        picture: npt.NDArray[np.uint8],
        words: object,
        *,
        index: int | None = None,
        time_s: float | None = None,
    ) -> Float32Array:
        """Add a frame and return its smoothed logits.

        With the memory T and the time t since the previous frame, the new logits have the weight
        ``w = 1 − exp(−t / T)``, and in a cell that changed by the share c, 0–1, the weight ``w + (1 − w)·c``.

        Args:
            logits: `(K, h, w)` float32. Not modified.
            picture: `(H, W, 3)` uint8 RGB: the picture that the logits are of, at any size.
            words: The vocabulary; another object starts anew.
            index: Number of the frame in its source; None for the one after the last.
            time_s: Time of the frame in seconds; None to compute it from the number.

        Returns:
            `(K, h, w)` float32, also kept for the next frame: do not modify it.
        """
        self._index = self._index + 1 if index is None else index
        if not self.applies(time_s):
            return logits
        if time_s is None:
            time_s = self._index / self._fps
        grey = _small_grey(picture, logits.shape[1:])
        mean, before, elapsed_s = self._mean, self._grey, time_s - self._time_s
        same = mean is not None and mean.shape == logits.shape and words is self._words and elapsed_s >= 0
        if same and mean is not None and before is not None:
            changed = _changed_cells(grey, before, logits.shape[1:])
            if changed.mean() <= _CUT:
                weight = 1 - math.exp(-elapsed_s / self._memory_s)
                step = logits - mean
                follow = _spread(changed) * _clearly_changed(step, logits)
                logits = mean + (weight + (1 - weight) * follow) * step
        self._mean, self._grey, self._words, self._time_s = logits, grey, words, time_s
        return logits


def _small_grey(picture: npt.NDArray[np.uint8], grid: tuple[int, ...]) -> Float32Array:
    """The picture in grey, `(h·4, w·4)` float32, 0–255."""
    height, width = grid[0] * _CELL, grid[1] * _CELL
    # Two rows of pixels are averaged for one: all of them would take most of the time.
    step = max(picture.shape[0] // height // 2, 1)
    grey = Image.fromarray(picture[::step]).convert("L")
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.float32)


def _changed_cells(grey: Float32Array, before: Float32Array, grid: tuple[int, ...]) -> Float32Array:
    """How much the picture changed in each cell, `(h, w)`: 0 still, 1 changed."""
    squares = np.square(grey - before).reshape(grid[0], _CELL, grid[1], _CELL)
    difference = np.sqrt(squares.mean(axis=(1, 3)))
    changed: Float32Array = ((difference - _STILL) / (_CHANGED - _STILL)).clip(0, 1)
    return changed


def _clearly_changed(step: Float32Array, logits: Float32Array) -> Float32Array:
    """How clearly the logits changed in each cell, `(h, w)`: 0 like noise, 1 clearly."""
    size = np.abs(step).max(axis=0) / max(float(logits.std()), 1e-6)
    clear: Float32Array = ((size - _NOISE) / (_CLEAR - _NOISE)).clip(0, 1)
    return clear


def _spread(changed: Float32Array) -> Float32Array:
    """The largest value in the neighbourhood of each cell."""
    reach = max(round(max(changed.shape) * _NEIGHBOURHOOD), 1)
    for _ in range(2):  # Rows, then columns.
        padded = np.pad(changed, ((reach, reach), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
        changed = windows.max(axis=2).T
    return changed
