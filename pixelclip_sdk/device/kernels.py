"""Launches the kernels of `kernels.cu`; the order is in `pipeline`.

`edges` launches those of `edges.cu`, and `smooth` those of `smooth.cu`.
"""

import ctypes
import functools
from typing import Any, NamedTuple

from pixelclip_sdk.device.tables import ROWS, Resize

__all__ = ["KERNELS", "Kernels", "Nv12", "Pixels", "Rows", "Taps"]

# What the letters of `Kernels.start` mean.
_TYPES = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "l": ctypes.c_longlong,
    "u": ctypes.c_uint,
    "f": ctypes.c_float,
}
_RESIZE = "p" "lllll" "iiii" "uuuu" "pppi" "pppi" "iiii" "p"  # fmt: skip
_GREY = "p" "lllll" "ii" "p"  # fmt: skip
_NV12 = "pl" "pl" "iiiiiiii" "p"  # fmt: skip
_CHECK = "plp"
_LABEL = "pii" "pi" "pppppp" "ii" "fiii" "pp"  # fmt: skip

KERNELS = ("resize", "grey", "nv12", "check_finite", "label")
"""Names of the kernels of `kernels.cu`."""

_BLOCK = (32, 8)
_WIDE_BLOCK = (64, 4)
_CHECK_BLOCK, _CHECK_GRID = 256, 128


@functools.cache
def _types(arguments: str) -> tuple[Any, ...]:
    return tuple(_TYPES[letter] for letter in arguments)


class Pixels(NamedTuple):
    """Where a frame lies in device memory: its address and its strides in bytes.

    `channels` are the offsets of red, green and blue. So one description fits HWC and CHW, RGB and BGR, and
    rows with padding.
    """

    address: int
    row: int
    column: int
    channels: tuple[int, int, int]


class Nv12(NamedTuple):
    """Where a decoded video frame lies in device memory: addresses of its planes, and bytes from row to row.

    `bright` has a byte for a pixel, `colours` two bytes (U, V) for each block of 2 × 2 pixels.
    """

    bright: int
    bright_row: int
    colours: int
    colours_row: int


class Taps(NamedTuple):
    """Addresses of a `tables.Filter` in device memory, and its number of taps."""

    start: int
    counts: int
    weights: int
    taps: int


class Rows(NamedTuple):
    """Addresses of a `tables.Points` in device memory."""

    lower: int
    upper: int
    weight: int


class Kernels:
    """The kernels as functions. They start work on a stream and return at once.

    Args:
        launch: Starts a kernel: ``launch(name, grid, block, values, types, stream)``.
    """

    def __init__(self, launch: Any) -> None:
        self._launch = launch

    def resize(self, pixels: Pixels, table: Resize, rows: Taps, columns: Taps, out: int, stream: Any) -> None:
        """Resize a frame to the model's input `(H, W, 3)` uint8 RGB at `out`."""
        values = (
            *(pixels.address, pixels.row, pixels.column, *pixels.channels, *table.frame),
            *(table.rows.factor, table.columns.factor, *table.reciprocals(), *rows, *columns),
            *(*table.scaled, *table.whole, out),
        )
        self.start("resize", table.whole, values, _RESIZE, stream, block=_BLOCK)

    def grey(self, pixels: Pixels, size: tuple[int, int], out: int, stream: Any) -> None:
        """Write the brightness of a frame `(H, W)` to `out`, uint8."""
        values = (pixels.address, pixels.row, pixels.column, *pixels.channels, *size, out)
        self.start("grey", size, values, _GREY, stream)

    def nv12(
        self, frame: Nv12, size: tuple[int, int], numbers: tuple[int, ...], out: int, stream: Any
    ) -> None:
        """Write a decoded video frame to `out`, `(H, W, 3)` uint8 RGB; `numbers` are of `video.colours`.

        Both sides of `size` are even.
        """
        self.start("nv12", size, (*frame, *size, *numbers, out), _NV12, stream)

    def check_finite(self, logits: int, count: int, found: int, stream: Any) -> None:
        """Write 1 to the int at `found` if one of `count` logits is NaN or infinite."""
        grid, block = (_CHECK_GRID, 1), (_CHECK_BLOCK, 1)
        self._launch("check_finite", grid, block, (logits, count, found), _types(_CHECK), stream)

    def label(
        self,
        logits: int,
        grid: tuple[int, int],
        classes: tuple[int, int],
        rows: Rows,
        columns: Rows,
        size: tuple[int, int],
        *,
        threshold: float | None,
        names: int,
        unknown: int,
        labels: int,
        scores: int,
        stream: Any,
    ) -> None:
        """Write the best class of every pixel to `labels`, and its logit to `scores` unless that is 0.

        Args:
            logits: Address of `(K, h, w)` float32.
            grid: `(h, w)`.
            classes: Address and number of the rows of the logits that compete, int32, ascending.
            rows: Points of the grid beside each row of pixels.
            columns: The same for columns.
            size: `(H, W)` of the labels.
            threshold: Pixels whose best logit is below it are unknown; None for no threshold.
            names: Winners from this number on are unknown.
            unknown: The label of these pixels: 255, or 65535 for labels of 16 bits.
            labels: Address of `(H, W)` uint8, or uint16 if `unknown` is above 255.
            scores: Address of `(H, W)` float32, or 0.
            stream: A stream of CUDA.
        """
        least = float("-inf") if threshold is None else threshold
        wide = int(unknown > 255)
        values = (
            *(logits, *grid, *classes, *rows, *columns, *size),
            *(least, names, unknown, wide, labels, scores),
        )
        self.start("label", size, values, _LABEL, stream, ROWS)

    def start(
        self,
        name: str,
        size: tuple[int, int],
        values: tuple[Any, ...],
        arguments: str,
        stream: Any,
        rows: int = 1,
        block: tuple[int, int] = _WIDE_BLOCK,
    ) -> None:
        """Start a kernel with a thread for every `rows` × 1 elements of an area `(H, W)`.

        `arguments` has a letter for each of `values`: p for a pointer, i and l for integers of 32 and 64
        bits, u for unsigned ones of 32, f for a float.
        """
        if size[0] == 1:
            block = (block[0], 1)
        grid = -(-size[1] // block[0]), -(-size[0] // (block[1] * rows))
        self._launch(name, grid, block, values, _types(arguments), stream)
