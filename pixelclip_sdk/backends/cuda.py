"""CUDA's runtime through NVIDIA's own bindings, with every failure an exception."""

import contextlib
import ctypes
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import BackendError, BackendUnavailableError

__all__ = ["Cuda", "Gpu"]


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU of this machine.

    Attributes:
        index: CUDA's number of it.
        name: For people.
        compute_capability: E.g. ``"8.6"``.
    """

    index: int
    name: str
    compute_capability: str


class Cuda:
    """One GPU: memory, a stream's copies, graphs.

    Pointers are plain integers; handles are objects of ``cuda.bindings``.

    Args:
        index: CUDA's number of the GPU.

    Raises:
        BackendUnavailableError: The package, the driver or the GPU is not there.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            from cuda.bindings import driver, runtime
        except ImportError as error:
            raise BackendUnavailableError(
                f"cuda-bindings cannot be imported: {error}. "
                'Install it: pip install "pixelclip-sdk[tensorrt]"'
            ) from error
        self._runtime: Any = runtime
        self._driver: Any = driver
        try:
            count = self.call("cudaGetDeviceCount")
        except BackendError as error:
            raise BackendUnavailableError(
                f"no NVIDIA GPU can be used: {error}. Check `nvidia-smi`, or use device='cpu'."
            ) from error
        if not 0 <= index < count:
            raise BackendUnavailableError(
                f"device is gpu:{index}; this machine has {count} NVIDIA GPU(s), counted from 0"
            )
        facts = self.call("cudaGetDeviceProperties", index)
        name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
        self.gpu = Gpu(index, name.rstrip("\0"), f"{facts.major}.{facts.minor}")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the runtime; return what it gives besides its status.

        Raises:
            BackendError: Its status is not success.
        """
        status, *values = getattr(self._runtime, function)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            _, text = self._runtime.cudaGetErrorString(status)
            said = text.decode() if isinstance(text, bytes) else str(text)
            raise BackendError(f"{function} failed: {said} (CUDA error {int(status)})")
        return values[0] if values else None

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU this thread's current one; then restore the one before, if the program uses that.

        To set a device makes a context on it, which takes memory, and fails where the GPU is another's. The
        current one of a thread that never used CUDA is number 0.
        """
        before = self.call("cudaGetDevice")
        self.call("cudaSetDevice", self.gpu.index)
        try:
            yield
        finally:
            if before != self.gpu.index and self._in_use(before):
                self.call("cudaSetDevice", before)

    def _in_use(self, index: int) -> bool:
        """Whether this process has a context on a GPU."""
        status, _, active = self._driver.cuDevicePrimaryCtxGetState(index)
        return status == self._driver.CUresult.CUDA_SUCCESS and bool(active)

    def device_memory(self, size: int, release: contextlib.ExitStack) -> int:
        """Pointer to new memory of `size` bytes on the GPU, freed with `release`."""
        pointer = int(self.call("cudaMalloc", size))
        release.callback(self.call, "cudaFree", pointer)
        return pointer

    def pinned_memory(self, size: int, release: contextlib.ExitStack) -> npt.NDArray[np.uint8]:
        """`size` bytes of the host that the GPU copies from and to directly, freed with `release`."""
        pointer = int(self.call("cudaMallocHost", size))
        release.callback(self.call, "cudaFreeHost", pointer)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def stream(self, release: contextlib.ExitStack) -> Any:
        """A new stream, destroyed with `release`."""
        stream = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        release.callback(self.call, "cudaStreamDestroy", stream)
        return stream

    def upload(self, host: npt.NDArray[np.uint8], device: int, stream: Any) -> None:
        """Start to copy all of `host`, pinned, to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", device, host.ctypes.data, host.nbytes, kind, stream)

    def download(self, device: int, host: npt.NDArray[np.uint8], stream: Any) -> None:
        """Start to fill all of `host`, pinned, from the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", host.ctypes.data, device, host.nbytes, kind, stream)

    def synchronize(self, stream: Any) -> None:
        """Wait for all that was started on the stream."""
        self.call("cudaStreamSynchronize", stream)

    @contextlib.contextmanager
    def capture(self, stream: Any, graphs: list[Any]) -> Iterator[None]:
        """Record what the body starts on the stream, run none of it, and append the executable graph.

        Raises:
            BackendError: Something in it cannot be recorded. The stream can be used as before.
        """
        # Thread-local: other threads of the program may allocate memory meanwhile.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)
        try:
            yield
        except BaseException:
            with contextlib.suppress(BackendError):
                self.call("cudaGraphDestroy", self.call("cudaStreamEndCapture", stream))
            raise
        graph = self.call("cudaStreamEndCapture", stream)
        try:
            graphs.append(self.call("cudaGraphInstantiate", graph, 0))
        finally:
            self.call("cudaGraphDestroy", graph)
