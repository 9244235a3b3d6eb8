"""DeviceEncoder: an engine for images and logits that stay in a GPU's memory."""

import abc
import contextlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.cuda import Cuda

__all__ = ["DeviceEncoder", "Encoded", "Float32Array"]

Float32Array = npt.NDArray[np.float32]


class Encoded(NamedTuple):
    """Logits in a GPU's memory: the address of `(K', h, w)` float32, K' ≥ K, and `(h, w)`.

    The next image overwrites them.
    """

    address: int
    grid: tuple[int, int]


class DeviceEncoder(abc.ABC):
    """An image encoder whose work is started on one stream.

    Args:
        cuda: The GPU.
        stream: The stream of CUDA.
        lock: Held while work is started, also by the engine's other methods.

    Attributes:
        attached: What belongs to the engine besides; the engine closes it, after its last work.
    """

    def __init__(self, cuda: Cuda, stream: Any, lock: contextlib.AbstractContextManager[Any]) -> None:
        self.cuda, self.stream, self.lock = cuda, stream, lock
        self.attached = contextlib.ExitStack()

    @abc.abstractmethod
    def encode(self, image: int, size: tuple[int, int], text: Float32Array) -> Encoded:
        """Start to compute the logits of one image. The caller holds the lock and has made the GPU current.

        Args:
            image: Address of `(H, W, 3)` uint8 RGB, unchanged until the work is done.
            size: `(H, W)`.
            text: `(K, D)` float32, unit rows. Copied to the GPU only if it is another one than before.

        Raises:
            BackendError: The engine is closed, failed, or does not take this size or so many texts.
        """
