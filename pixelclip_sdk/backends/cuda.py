"""CUDA through NVIDIA's Python bindings. Every failure raises an exception."""

import contextlib
import ctypes
import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import BackendError, BackendUnavailableError

RECORDING = threading.RLock()
"""Held while a CUDA graph is recorded, and by what CUDA refuses meanwhile, in all threads of the process.

That is: to wait for a whole GPU, and to free its memory, which may wait too.
"""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU: CUDA's number of it, its name, and its compute capability, e.g. ``"8.6"``."""

    index: int
    name: str
    compute_capability: str


def _text(value: bytes | str) -> str:
    return (value.decode() if isinstance(value, bytes) else str(value)).rstrip("\0")


class Cuda:
    """Memory, copies and graphs of the GPU with number `index`.

    Pointers are integers. Handles are objects of ``cuda.bindings``. Raises BackendUnavailableError if the
    package, the driver or the GPU is missing.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            from cuda.bindings import driver, runtime
        except ImportError as error:
            raise BackendUnavailableError(
                f'cuda-bindings cannot be imported: {error}. Run: pip install "pixelclip-sdk[cuda]"'
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
        self.gpu = Gpu(index, _text(facts.name), f"{facts.major}.{facts.minor}")

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the CUDA runtime and return its result; raise BackendError if it failed."""
        status, *values = getattr(self._runtime, function)(*arguments)
        if status != self._runtime.cudaError_t.cudaSuccess:
            _, reason = self._runtime.cudaGetErrorString(status)
            raise BackendError(f"{function} failed: {_text(reason)} (CUDA error {int(status)})")
        return values[0] if values else None

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the GPU this thread's current one, and restore the previous one afterwards if it is in use.

        Setting a device creates a context on it, which takes memory and may fail. In a thread that never used
        CUDA, the previous device is number 0 although it is unused.

        Meanwhile, this thread may allocate while another one records a graph. By CUDA's default that would
        fail, and end the recording: ONNX Runtime records in the mode "global".
        """
        before = self.call("cudaGetDevice")
        self.call("cudaSetDevice", self.gpu.index)
        local = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        mode = self.call("cudaThreadExchangeStreamCaptureMode", local)
        try:
            yield
        finally:
            with contextlib.suppress(BackendError):
                self.call("cudaThreadExchangeStreamCaptureMode", mode)
            if before != self.gpu.index and self._in_use(before):
                self.call("cudaSetDevice", before)

    def _in_use(self, index: int) -> bool:
        """Return whether this process has a context on a GPU."""
        status, _, active = self._driver.cuDevicePrimaryCtxGetState(index)
        return status == self._driver.CUresult.CUDA_SUCCESS and bool(active)

    def device_memory(self, size: int, release: contextlib.ExitStack) -> int:
        """Allocate `size` bytes on the GPU and return the pointer; `release` frees them."""
        pointer = int(self.call("cudaMalloc", size))
        release.callback(self._free, "cudaFree", pointer)
        return pointer

    def pinned_memory(self, size: int, release: contextlib.ExitStack) -> npt.NDArray[np.uint8]:
        """Allocate `size` bytes of page-locked host memory; `release` frees them."""
        pointer = int(self.call("cudaMallocHost", size))
        release.callback(self._free, "cudaFreeHost", pointer)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def _free(self, function: str, pointer: int) -> None:
        with RECORDING:
            self.call(function, pointer)

    def stream(self, release: contextlib.ExitStack) -> Any:
        """Create a stream; `release` destroys it."""
        stream = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        release.callback(self.call, "cudaStreamDestroy", stream)
        return stream

    def upload(self, host: npt.NDArray[np.uint8], device: int, stream: Any) -> None:
        """Start to copy page-locked `host` memory to the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.call("cudaMemcpyAsync", device, host.ctypes.data, host.nbytes, kind, stream)

    def download(self, device: int, host: npt.NDArray[np.uint8], stream: Any) -> None:
        """Start to copy from the GPU to page-locked `host` memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.call("cudaMemcpyAsync", host.ctypes.data, device, host.nbytes, kind, stream)

    def copy(self, source: int, target: int, size: int, stream: Any) -> None:
        """Start to copy `size` bytes within the GPU."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self.call("cudaMemcpyAsync", target, source, size, kind, stream)

    def event(self, release: contextlib.ExitStack, *, sleeps: bool = False) -> Any:
        """Create an event, which marks a place in a stream; `release` destroys it.

        With `sleeps`, a thread that waits for it takes no time of its core.
        """
        flags = self._runtime.cudaEventDisableTiming
        event = self.call(
            "cudaEventCreateWithFlags", flags | self._runtime.cudaEventBlockingSync if sleeps else flags
        )
        release.callback(self.call, "cudaEventDestroy", event)
        return event

    def wait(self, stream: Any, event: Any) -> None:
        """Let later work on a stream wait for an event, without waiting here."""
        self.call("cudaStreamWaitEvent", stream, event, 0)

    def owner(self, address: int) -> int | None:
        """Return the number of the GPU whose memory is at an address; None for other and for freed memory."""
        found = self.call("cudaPointerGetAttributes", address)
        kinds = self._runtime.cudaMemoryType
        known = (kinds.cudaMemoryTypeDevice, kinds.cudaMemoryTypeManaged)
        return int(found.device) if found.type in known else None

    def load_kernels(self, code: bytes, names: tuple[str, ...]) -> Callable[..., None]:
        """Load machine code for this GPU. It is unloaded with the process.

        Returns a function that starts a kernel: ``launch(name, grid, block, values, types, stream)``. Types
        are of ctypes; grids and blocks are `(x, y)`.
        """
        module = self._drive("cuModuleLoadData", code)
        functions = {name: self._drive("cuModuleGetFunction", module, name.encode()) for name in names}

        def launch(
            name: str,
            grid: tuple[int, int],
            block: tuple[int, int],
            values: tuple[Any, ...],
            types: tuple[Any, ...],
            stream: Any,
        ) -> None:
            self._drive("cuLaunchKernel", functions[name], *grid, 1, *block, 1, 0, stream, (values, types), 0)

        return launch

    def _drive(self, function: str, *arguments: Any) -> Any:
        """Call a function of CUDA's driver, like `call`."""
        status, *values = getattr(self._driver, function)(*arguments)
        if status != self._driver.CUresult.CUDA_SUCCESS:
            _, reason = self._driver.cuGetErrorString(status)
            raise BackendError(f"{function} failed: {_text(reason)} (CUDA error {int(status)})")
        return values[0] if values else None

    def synchronize(self, stream: Any) -> None:
        """Wait for all work on the stream. Only then copies are complete and errors are known."""
        self.call("cudaStreamSynchronize", stream)

    def synchronize_all(self) -> None:
        """Wait for all work on the GPU, also that of other libraries."""
        with RECORDING:
            self.call("cudaDeviceSynchronize")

    @contextlib.contextmanager
    def capture(self, stream: Any, graphs: list[Any]) -> Iterator[None]:
        """Record the work that the body starts on the stream, without running it, and append the graph.

        If the work cannot be recorded, BackendError is raised and the stream stays usable.
        """
        # Thread-local, so that other threads of the program may allocate memory meanwhile.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with RECORDING:
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
