"""DeviceEncoder: an engine for images and logits that stay in a GPU's memory."""

import abc
import concurrent.futures
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.errors import BackendError

__all__ = ["BATCH", "DeviceEncoder", "Encoded", "Float32Array"]

Float32Array = npt.NDArray[np.float32]

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
        lock: Held while work is started, also by the engine's other methods.
        batches: The numbers of images that the engine takes at once, ascending.

    Attributes:
        attached: What belongs to the engine besides; the engine closes it, after its last work.
    """

    def __init__(
        self,
        cuda: Cuda,
        stream: Any,
        lock: contextlib.AbstractContextManager[Any],
        batches: tuple[int, ...],
    ) -> None:
        self.cuda, self.stream, self.lock, self.batches = cuda, stream, lock, batches
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "pixelclip-gpu")
        self.attached = contextlib.ExitStack()
        self.attached.callback(self._thread.shutdown, wait=False)

    def submit(self, work: Callable[[], Made]) -> concurrent.futures.Future[Made]:
        """Let the engine's thread do work: under the lock, with the GPU current.

        Raises:
            BackendError: The engine is closed.
        """

        def there() -> Made:
            with self.lock, self.cuda.current():
                return work()

        try:
            return self._thread.submit(there)
        except RuntimeError as error:  # No thread takes work any more.
            raise BackendError("this engine is closed. Load the model again.") from error

    def run(self, work: Callable[[], Made]) -> Made:
        """Do work in the engine's thread and wait for it, also where the caller is interrupted."""
        future = self.submit(work)
        try:
            return future.result()
        finally:
            concurrent.futures.wait([future])
            del future  # Its error refers to this frame, which would keep everything here alive.

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
