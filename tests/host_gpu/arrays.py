"""Arrays of other libraries in the memory of `host_gpu.cuda`."""

from typing import Any

import numpy as np
from host_gpu.cuda import HostCuda

from pixelclip_sdk.device import dlpack


class InterfaceArray:
    """An array by ``__cuda_array_interface__``. `write` fills it, on its stream if it has one."""

    def __init__(
        self, cuda: HostCuda, content: np.ndarray, *, stream: int | None = None, **changes: Any
    ) -> None:
        self._cuda, self._nbytes = cuda, content.nbytes
        _, self.address = cuda.cudaMalloc(max(content.nbytes, 1))
        self.__cuda_array_interface__ = {
            "shape": content.shape,
            "typestr": content.dtype.str,
            "data": (self.address, False),
            "version": 3,
            "stream": stream,
        } | changes
        self.stream = stream
        self.write(content)

    def write(self, content: np.ndarray) -> None:
        memory = self._cuda.at(self.address, self._nbytes, "device")
        content = np.ascontiguousarray(content).reshape(-1).view(np.uint8).copy()
        if not self.stream:
            memory[:] = content
        else:
            self._cuda.start(self.stream, lambda: np.copyto(memory, content))


class DlpackArray(InterfaceArray):
    """An array by ``__dlpack__``, like a tensor of PyTorch, whose interface says no stream."""

    def __init__(self, cuda: HostCuda, content: np.ndarray, *, stream: int) -> None:
        super().__init__(cuda, content, stream=stream)
        del self.__cuda_array_interface__["stream"]
        self._shape, self._dtype, self._gpu = content.shape, content.dtype, cuda.device

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self._gpu

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        if self._cuda.device != self._gpu:
            raise BufferError("Can't export tensors on a different CUDA device index.")
        if stream != -1:
            _, event = self._cuda.cudaEventCreateWithFlags(0)
            self._cuda.cudaEventRecord(event, self.stream)
            self._cuda.cudaStreamWaitEvent(stream, event, 0)
        return dlpack.export(self.address, self._shape, self._dtype, self.__dlpack_device__(), self)
