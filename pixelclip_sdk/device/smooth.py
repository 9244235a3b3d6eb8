"""Smoothing over time on a GPU: `smoothing.Smoother.blend`, equal but for rounding.

The kernels of `smooth.cu` are its steps. Whether the average starts anew is decided on the host where no
array is needed for it, and on the GPU where the picture or damaged logits say so: the host waits for nothing.
All of it runs on the engine's stream, so frames of a source are smoothed in the order in which they start.
"""

import math
import weakref
from typing import Any

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device.kept import Kept
from pixelclip_sdk.device.kernels import Kernels, Pixels
from pixelclip_sdk.device.slots import Buffers
from pixelclip_sdk.device.tables import Resize
from pixelclip_sdk.smoothing import (
    CELL,
    CHANGED,
    CLEAR,
    CUT,
    NOISE,
    STILL,
    Smoother,
    Turn,
    reach,
    row_step,
)

__all__ = ["SMOOTH_KERNELS", "Smoothing"]

# The arguments of the kernels; see `Kernels.start`.
_ARGUMENTS = {
    "compare": "pp" "iii" "pp" "i" "ff" "p",
    "add_rows": "p" "ii" "p",
    "follow": "pp" "iiii" "fffff" "i" "pp",
    "blend": "p" "ii" "pppp",
}  # fmt: skip
SMOOTH_KERNELS = tuple(_ARGUMENTS)
"""Names of the kernels of `smooth.cu`."""

Size = tuple[int, int]


class Smoothing:
    """Smooths logits on a GPU. The caller holds the engine's lock.

    Args:
        cuda: The GPU.
        kernels: The kernels, also those of `SMOOTH_KERNELS`.
        tables: The pipeline's tables.
    """

    def __init__(self, cuda: Cuda, kernels: Kernels, tables: Kept) -> None:
        self._cuda, self._kernels, self._tables = cuda, kernels, tables
        self._shared = Buffers(cuda)
        self._averages: weakref.WeakKeyDictionary[Smoother, Buffers] = weakref.WeakKeyDictionary()
        # Without a lock, because the garbage collector may end a Smoother in the middle of anything, also
        # while a CUDA graph is recorded, when nothing may be freed. Its `append` and `pop` are atomic.
        self._gone: list[Buffers] = []
        self._place = object()

    def blend(
        self,
        turn: Turn,
        words: object,
        logits: int,
        shape: tuple[int, int, int],
        image: int,
        size: Size,
        found: int,
        stream: Any,
    ) -> None:
        """Start to smooth the logits of a frame, in place. If it raises, the caller lets the Smoother forget.

        Args:
            turn: The frame's.
            words: Another object starts anew.
            logits: Address of those that compete, `(K, h, w)` float32.
            shape: `(K, h, w)`.
            image: Address of the model's input, `(H, W, 3)` uint8 RGB.
            size: `(H, W)` of it.
            found: Address of an int that is not 0 if a logit is NaN or infinite.
            stream: The engine's stream.
        """
        count, height, width = shape
        grid, plane = (height, width), height * width
        small_bytes = plane * CELL * CELL * 3
        kept = self._averages.get(turn.smoother) or self._new(turn.smoother)
        average, before, spoiled = (
            kept.get(name, length)
            for name, length in (("average", count * plane * 4), ("grey", small_bytes), ("spoiled", 4))
        )
        small = self._small_grey(image, size, grid, stream)
        facts, sums, weights = (
            self._shared.get(name, length)
            for name, length in (("facts", 4 * plane * 8), ("sums", 3 * height * 8), ("weights", plane * 4))
        )
        weight = turn.smoother.advance(words, shape, self._place, index=turn.index, time_s=turn.time_s)
        new, anew = (1.0, 1) if weight is None else (weight, 0)
        grey = (small, before, CELL, STILL, CHANGED - STILL)
        self._run("compare", grid, (logits, average, *shape, *grey, facts), stream)
        self._run("add_rows", (1, 3 * height), (facts, 3 * height, width, sums), stream)
        limits = (reach(grid), NOISE, CLEAR - NOISE, CUT)
        decided = (*limits, new, 1 - new, anew, spoiled)
        self._run("follow", grid, (facts, sums, *shape, *decided, weights), stream)
        self._run("blend", (count, plane), (weights, count, plane, average, logits, found, spoiled), stream)
        self._cuda.copy(small, before, small_bytes, stream)

    def free_gone(self) -> None:
        """Free the averages of Smoothers that are gone."""
        while self._gone:
            self._gone.pop().close()

    def close(self) -> None:
        """Free all memory."""
        self.free_gone()
        for kept in list(self._averages.values()):
            kept.close()
        self._shared.close()

    def _new(self, smoother: Smoother) -> Buffers:
        kept = self._averages[smoother] = Buffers(self._cuda)
        weakref.finalize(smoother, self._gone.append, kept).atexit = False
        return kept

    def _small_grey(self, image: int, size: Size, grid: Size, stream: Any) -> int:
        """Start to make the small grey picture of the model's input, and return its address."""
        height, width = grid[0] * CELL, grid[1] * CELL
        step = row_step(size[0], height)
        rows = math.ceil(size[0] / step), size[1]
        grey = self._shared.get("rows", rows[0] * rows[1])
        pixels = Pixels(image, size[1] * 3 * step, 3, (0, 1, 2))
        self._kernels.grey(pixels, rows, grey, stream)
        small = self._shared.get("small", height * width * 3)
        table, down, across = self._tables.resize(
            ("smooth", rows, grid), lambda: Resize.box(rows, (height, width))
        )
        # One plane, as three equal ones.
        self._kernels.resize(Pixels(grey, rows[1], 1, (0, 0, 0)), table, down, across, small, stream)
        return small

    def _run(self, name: str, size: Size, values: tuple[Any, ...], stream: Any) -> None:
        self._kernels.start(name, size, values, _ARGUMENTS[name], stream)
