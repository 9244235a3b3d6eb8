"""DeviceEncoder: an engine for images and logits that stay in a GPU's memory."""

import abc
import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.errors import BackendError

__all__ = ["BATCH", "DeviceEncoder", "Encoded", "Float32Array"]

Float32Array = npt.NDArray[np.float32]

# How long a finalizer waits for the engine's thread.
_PATIENCE_S = 1.0

BATCH = 4
"""Images that go through a model together where that many wait. Each number has a CUDA graph of its own."""

Made = TypeVar("Made")


class Encoded(NamedTuple):
    """Logits in a GPU's memory: of each image the address of `(K', h, w)` float32, K' ≥ K, and `(h, w)`.

    The next images overwrite them.
    """

    addresses: tuple[int, ...]
    grid: tuple[int, int]


class DeviceEncoder(abc.ABC):
    """An image encoder whose work is started by one thread, on one stream.

    Args:
        cuda: The GPU.
        stream: The stream of CUDA.
        lock: A `threading.RLock`, held while work is started, also by the engine's other methods.
        batches: The numbers of images that the engine takes at once, ascending.

    Attributes:
        attached: What belongs to the engine besides; the engine closes it, after its last work.
    """

    def __init__(self, cuda: Cuda, stream: Any, lock: Any, batches: tuple[int, ...]) -> None:
        self.cuda, self.stream, self.lock, self.batches = cuda, stream, lock, batches
        self.attached = contextlib.ExitStack()
        self.attached.callback(self._end)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "pixelclip-gpu")
        self._process, self._ended, self._working = os.getpid(), False, False

    def submit(self, work: Callable[[], Made]) -> concurrent.futures.Future[Made]:
        """Let the engine's thread do work: under the lock, with the GPU current.

        Raises:
            BackendError: The engine is closed.
        """

        def there() -> Made:
            with self.lock, self.cuda.current():
                self._working = True
                try:
                    return work()
                finally:
                    self._working = False

        with contextlib.suppress(RuntimeError):
            return self._thread.submit(there)
        if self._ended:
            raise BackendError("this engine is closed. Load the model again.")
        # Python ends such threads with the main thread, although others may go on; or there can be no more.
        future: concurrent.futures.Future[Made] = concurrent.futures.Future()
        try:
            future.set_result(there())
        except BaseException as error:
            future.set_exception(error)
        return future

    def run(self, work: Callable[[], Made]) -> Made:
        """Do work in the engine's thread and wait for it, also where the caller is interrupted."""
        future = self.submit(work)
        try:
            return future.result()
        finally:
            concurrent.futures.wait([future])
            del future  # Its error refers to this frame, which would keep everything here alive.

    def close_finally(self, close: Callable[[], object]) -> None:
        """Call what closes the engine in a finalizer, which may run anywhere, with any lock held."""
        if os.getpid() != self._process:
            return  # A forked child cannot use its parent's GPU context.
        # The engine's thread may wait for a lock of this thread, or be this one, in the middle of work.
        if not self.lock.acquire(timeout=_PATIENCE_S):
            self.submit(close)
            return
        try:
            if self._working:
                self.submit(close)
            else:
                close()
        finally:
            self.lock.release()

    def _end(self) -> None:
        self._ended = True
        self._thread.shutdown(wait=False)

    @abc.abstractmethod
    def encode(self, images: Sequence[int], size: tuple[int, int], text: Float32Array) -> Encoded:
        """Start to compute the logits of images. Only the engine's thread calls it, in `submit`.

        Args:
            images: Addresses of `(H, W, 3)` uint8 RGB, unchanged until the work is done. At most the largest
                of `batches`; for a number that is not among them, the next one is computed.
            size: `(H, W)`.
            text: `(K, D)` float32, unit rows. Copied to the GPU only if it is another one than before.

        Raises:
            BackendError: The engine is closed, failed, or does not take this size or so many texts.
        """

    def _batch(self, count: int) -> int:
        """The number of images that are computed for `count` of them."""
        return next(number for number in self.batches if number >= count)
