"""Arrays in a GPU's memory: ours, for other libraries, and theirs, as frames."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.device import dlpack

__all__ = ["DeviceArray"]

# Numbers of CUDA's default streams in both protocols.
_LEGACY = 1


class DeviceArray:
    """A C-contiguous array in a GPU's memory, such as `Segmentation.labels_on_device`.

    CuPy, PyTorch and other libraries read it without a copy, through ``__dlpack__`` or
    ``__cuda_array_interface__``: ``torch.from_dlpack(array)``, ``cupy.asarray(array)``. Do not write to it.
    Its memory is kept while this object or an array made from it lives.

    Attributes:
        shape: Size of each dimension.
        dtype: numpy's name of the numbers.
        device: The GPU, e.g. ``"gpu:0"``.

    Examples:
        >>> from pixelclip_sdk import Segmenter
        >>> with Segmenter.from_pretrained("my-bundle", backend="onnx-cuda") as segmenter:  # doctest: +SKIP
        ...     result = segmenter.predict(torch_tensor_on_the_gpu)
        ...     labels = torch.from_dlpack(result.labels_on_device)
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        gpu: int,
        stream: Any,
        before: Callable[[int | None], None],
        download: Callable[[], np.ndarray],
    ) -> None:
        self.shape, self.dtype, self.device = shape, np.dtype(dtype), f"gpu:{gpu}"
        self._address, self._gpu, self._stream = address, gpu, stream
        self._before, self._download = before, download
        self._lock = threading.Lock()
        self._array: np.ndarray | None = None

    def numpy(self) -> np.ndarray:
        """Wait for the array and copy it to the host, once: later calls return the same array.

        Raises:
            BackendError: The GPU failed, or the logits are not finite.
        """
        with self._lock:
            if self._array is None:
                self._array = self._download()
            return self._array

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return np.array(array, dtype) if copy else np.asarray(array, dtype)  # NumPy 1 knows no copy=None.

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._gpu

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"labels on {self.device} are lent where they are; for a copy call numpy()")
        # -1: the consumer orders its work itself.
        if stream != -1:
            self._before(_LEGACY if stream is None else int(stream))
        return dlpack.export(self._address, self.shape, self.dtype, self.__dlpack_device__(), self)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        self._before(None)  # The reader waits for our stream; which one reads is unknown.
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._address, True),
            "strides": None,
            "version": 3,
            "stream": int(self._stream),
        }

    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return _nothing, ()  # Another process cannot read this GPU's memory: it gets None.

    def __repr__(self) -> str:
        return f"DeviceArray({'×'.join(map(str, self.shape))} {self.dtype} on {self.device})"


def _nothing() -> None:
    return None
