"""A frame under way on a GPU: what waits for its work, and lends or copies its arrays."""

import concurrent.futures
import math
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device.arrays import DeviceArray
from pixelclip_sdk.device.slots import Slot, Slots
from pixelclip_sdk.errors import BackendError

__all__ = ["FOUND_BYTES", "Started"]

FOUND_BYTES = 4
"""Of ``"found"``: an int that is not 0 if a logit is NaN or infinite."""


class Started:
    """A frame under way. Its slot is used again once this object and its arrays are gone.

    Attributes:
        covered: Fractions of the grid that the frame covers.
        shapes: Shape and dtype of ``"labels"``, ``"scores"`` and ``"logits"``, after `wait`.
        future: Done when the work on the frame is started, or failed.
    """

    def __init__(self, cuda: Cuda, slots: Slots, slot: Slot, part: tuple[float, float]) -> None:
        self.covered = part
        self.shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
        self.future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._cuda, self._slot = cuda, slot
        self._give_back = weakref.finalize(self, slots.give, slot)
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait until the work on the frame is started.

        Raises:
            BackendError: The engine is closed, or the GPU failed, for example for lack of memory.
        """
        future = self.future
        try:
            future.result()
        except Exception:
            del self.future  # Its error refers to this object, which would keep the slot.
            if self._give_back.detach():
                self._slot.close()
            raise
        finally:
            del future

    def read(self) -> None:
        """Wait until the frame has been read."""
        self.wait()
        with self._cuda.current():
            self._cuda.synchronize(self._slot.stream)

    def begin(self, names: Sequence[str]) -> None:
        """Start to copy arrays to the host, after the work on the frame."""
        with self._cuda.current():
            self._cuda.wait(self._slot.stream, self._slot.done)
            for name in ("found", *names):
                address, host = self._slot.device(name, 0), self._slot.pinned(name, self.size_of(name))
                self._cuda.download(address, host, self._slot.stream)

    def end(self, names: Sequence[str]) -> list[np.ndarray]:
        """Wait for the arrays of `begin` and return copies.

        Raises:
            BackendError: See `wait`; or a logit is NaN or infinite.
        """
        self.wait()
        with self._cuda.current():
            self._cuda.synchronize(self._slot.stream)
        if self._slot.pinned("found", FOUND_BYTES).view(np.int32)[0]:
            raise BackendError(
                "the engine returned logits with NaN or infinite values. "
                "The weights are damaged, or fp16 arithmetic overflowed: export the model again, in fp32."
            )
        return [
            self._slot.pinned(name, self.size_of(name))
            .view(self.shapes[name][1])
            .reshape(self.shapes[name][0])
            .copy()
            for name in names
        ]

    def array(self, name: str) -> DeviceArray:
        """An array that stays on the GPU."""
        shape, dtype = self.shapes[name]

        def before(stream: int | None) -> None:
            self._slot.consumers.add(stream)
            with self._cuda.current():
                self._cuda.wait(self._slot.stream if stream is None else stream, self._slot.done)

        def download() -> np.ndarray:
            with self._lock:
                self.begin([name])
                return self.end([name])[0]

        address, gpu = self._slot.device(name, 0), self._cuda.gpu.index
        # Whom the reader waits for is unknown: not for the engine's stream, which may be recording a graph.
        return DeviceArray(address, shape, dtype, gpu, self._slot.stream, before, download)

    def size_of(self, name: str) -> int:
        """Bytes of an array; see `shapes`."""
        if name == "found":
            return FOUND_BYTES
        shape, dtype = self.shapes[name]
        return math.prod(shape) * dtype.itemsize
