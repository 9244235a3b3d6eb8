"""Smooths the logits of a video over time, so that labels do not flicker (docs/adr/0019).

Where the picture stays as it is, new logits are averaged with earlier ones, which are forgotten
exponentially. Where the picture changes and the logits change clearly, the new ones replace the average at
once, so that the label of a moving object is not late.

`device.smooth` is the same arithmetic on a GPU, with the constants of this file.
"""

import contextlib
import dataclasses
import math
import numbers
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import PixelClipError

__all__ = [
    "CELL",
    "CHANGED",
    "CLEAR",
    "CUT",
    "NOISE",
    "STILL",
    "Smooth",
    "Smoother",
    "Turn",
    "check_smooth",
    "reach",
    "row_step",
]

Float32Array = npt.NDArray[np.float32]

Smooth = float | Literal["auto"] | None
"""Memory in seconds, 0 to 1; ``"auto"``: 0.3 s for frames that have a time; None or 0: no smoothing."""

AUTO_S = 0.3
"""The memory of ``smooth="auto"``, in seconds."""

_DEFAULT_FPS = 30
CELL = 4
"""Pixels along each side of a grid cell in the small grey picture that shows where the picture changes."""

STILL, CHANGED = 3.0, 12.0
"""Change of the grey of a cell (root mean square, of 255): still up to STILL, changed from CHANGED on."""

NOISE, CLEAR = 0.2, 0.6
"""Change of the logits, in standard deviations of all logits of the frame: noise, and a clear change."""

CUT = 0.75
"""A larger share of changed cells is a cut: another scene."""

# Logits depend on a neighbourhood of this share of the grid's longer side.
_NEIGHBOURHOOD = 1 / 16


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
    With an engine on a GPU, the average stays there. It starts anew when the frames go to another engine, or
    to the host. Its memory is freed with the engine, or by the engine's next frame once the Smoother is gone.

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
        # Of the average: what it is of, or None for no average.
        self._key: tuple[object, tuple[int, ...], object] | None = None
        self._time_s = 0.0
        self._index = -1
        # The average and the picture of the last frame, of frames on the host.
        self._mean: Float32Array | None = None
        self._grey: Float32Array | None = None

    def applies(self, time_s: float | None) -> bool:
        """Whether `blend` changes anything of frames with this time."""
        return bool(self._memory_s) and not (time_s is None and self._needs_time)

    def advance(
        self,
        words: object,
        shape: tuple[int, ...],
        place: object,
        *,
        index: int | None = None,
        time_s: float | None = None,
    ) -> float | None:
        """Go on to a frame to which smoothing `applies`. The caller updates the average, or calls `forget`.

        Args:
            words: See `blend`.
            shape: Shape of the logits.
            place: Where the average is: None on the host, else an object for each place.
            index: See `blend`.
            time_s: See `blend`.

        Returns:
            The weight of new logits in regions that are still, 0–1; None if the average starts anew.
        """
        self._index = self._index + 1 if index is None else index
        if time_s is None:
            time_s = self._index / self._fps
        before, elapsed_s = self._key, time_s - self._time_s
        self._key, self._time_s = (words, shape, place), time_s
        same = before is not None and before[0] is words and before[1:] == (shape, place)
        # A time that is NaN starts anew, too.
        return 1 - math.exp(-elapsed_s / self._memory_s) if same and elapsed_s >= 0 else None

    def forget(self) -> None:
        """Start anew with the next frame."""
        self._key = None

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
        if not self.applies(time_s):
            return logits
        grey = _small_grey(picture, logits.shape[1:])
        weight = self.advance(words, logits.shape, None, index=index, time_s=time_s)
        mean, before = self._mean, self._grey
        if weight is not None and mean is not None and before is not None:
            changed = _changed_cells(grey, before, logits.shape[1:])
            if changed.mean() <= CUT:
                step = logits - mean
                follow = _spread(changed) * _clearly_changed(step, logits)
                logits = mean + (weight + (1 - weight) * follow) * step
        self._mean, self._grey = logits, grey
        return logits


@dataclasses.dataclass(eq=False)
class Turn:
    """A frame that is smoothed, between those before and those after it.

    Attributes:
        smoother: Of the frame's source.
        index: Number of the frame; see `Smoother.blend`.
        time_s: Time of the frame; see `Smoother.blend`.
        order: Waits for the frames before this one when it is entered, and lets the next one go on when it
            is left. It is entered once at most.
        wait_s: Seconds that it waited.
    """

    smoother: Smoother
    index: int | None = None
    time_s: float | None = None
    order: contextlib.AbstractContextManager[Any] = dataclasses.field(default_factory=contextlib.nullcontext)
    wait_s: float = 0.0

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Smooth the frame in the body, in its turn."""
        start = time.perf_counter()
        with self.order:
            self.wait_s += time.perf_counter() - start
            yield


def row_step(height: int, rows: int) -> int:
    """Of so many rows of a picture one is used for its small grey picture of `rows` rows.

    Two rows of pixels are averaged for one: all of them would take most of the time.
    """
    return max(height // rows // 2, 1)


def reach(grid: tuple[int, ...]) -> int:
    """How many cells a neighbourhood reaches to each side in a grid `(h, w)`."""
    return max(round(max(grid) * _NEIGHBOURHOOD), 1)


def _small_grey(picture: npt.NDArray[np.uint8], grid: tuple[int, ...]) -> Float32Array:
    """The picture in grey, `(h·4, w·4)` float32, 0–255."""
    height, width = grid[0] * CELL, grid[1] * CELL
    grey = Image.fromarray(picture[:: row_step(picture.shape[0], height)]).convert("L")
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.float32)


def _changed_cells(grey: Float32Array, before: Float32Array, grid: tuple[int, ...]) -> Float32Array:
    """How much the picture changed in each cell, `(h, w)`: 0 still, 1 changed."""
    squares = np.square(grey - before).reshape(grid[0], CELL, grid[1], CELL)
    difference = np.sqrt(squares.mean(axis=(1, 3)))
    changed: Float32Array = ((difference - STILL) / (CHANGED - STILL)).clip(0, 1)
    return changed


def _clearly_changed(step: Float32Array, logits: Float32Array) -> Float32Array:
    """How clearly the logits changed in each cell, `(h, w)`: 0 like noise, 1 clearly."""
    size = np.abs(step).max(axis=0) / max(float(logits.std()), 1e-6)
    clear: Float32Array = ((size - NOISE) / (CLEAR - NOISE)).clip(0, 1)
    return clear


def _spread(changed: Float32Array) -> Float32Array:
    """The largest value in the neighbourhood of each cell."""
    side = reach(changed.shape)
    for _ in range(2):  # Rows, then columns.
        padded = np.pad(changed, ((side, side), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * side + 1, axis=0)
        changed = windows.max(axis=2).T
    return changed
