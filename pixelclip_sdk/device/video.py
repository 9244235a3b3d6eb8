"""Decoded video on a GPU: PyAV's frames in the GPU's memory (NV12), as frames of the pipeline (RGB)."""

import contextlib
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device import dlpack
from pixelclip_sdk.device.frames import DeviceFrame, turned
from pixelclip_sdk.device.kernels import Kernels, Nv12
from pixelclip_sdk.errors import BackendError

__all__ = ["VideoFrames", "colours"]

# FFmpeg's number of a colour matrix (ITU-T H.273) → the shares of red and blue in the brightness.
_SHARES = {
    1: (0.2126, 0.0722),  # BT.709
    5: (0.299, 0.114),  # BT.601
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),  # BT.2020
}
# The decoder writes on CUDA's default stream, which has this number.
_DEFAULT_STREAM = 1


def colours(matrix: int, *, full: bool) -> tuple[int, ...] | None:
    """The numbers of the kernel `nv12`: black, scale, and shares: V in red, U and V in green, U in blue.

    The formula is of ITU-T H.273, section 8.3. The fixed point is that of FFmpeg's swscale: 13 bits after the
    point, 3 for black.

    Args:
        matrix: FFmpeg's number of the colour matrix.
        full: Whether brightness runs from 0 to 255, not from 16 to 235.

    Returns:
        None for a matrix that is not known.
    """
    if (shares := _SHARES.get(matrix)) is None:
        return None
    red, blue = shares
    green = 1 - red - blue
    black, scale, spread = (0, 1.0, 1.0) if full else (16, 255 / 219, 255 / 224)
    of_v, of_u = 2 * (1 - red) * spread, 2 * (1 - blue) * spread
    factors = scale, of_v, -of_u * blue / green, -of_v * red / green, of_u
    return black << 3, *(round(factor * (1 << 13)) for factor in factors)


class _Memory(NamedTuple):
    address: int
    size: int
    release: contextlib.ExitStack


class VideoFrames:
    """Makes RGB frames of decoded video frames on this GPU. One thread uses it at a time.

    Memory of frames that are gone is used again.

    Attributes:
        gpu: CUDA's number of the GPU.
        current: A context manager that makes it this thread's current one.
    """

    def __init__(self, cuda: Cuda, kernels: Kernels) -> None:
        self.gpu, self.current = cuda.gpu.index, cuda.current
        self._cuda, self._kernels = cuda, kernels
        self._release = contextlib.ExitStack()
        self._free: list[_Memory] = []
        self._closed = False
        self._lock = threading.Lock()
        with cuda.current():
            self._stream = cuda.stream(self._release)
            self._decoded = cuda.event(self._release)

    def frame(self, picture: Any, matrix: int, quarters: int) -> DeviceFrame | None:
        """Convert a frame; when this returns, the decoder may use its memory again.

        Args:
            picture: PyAV's frame of format ``"cuda"``.
            matrix: FFmpeg's number of the colour matrix.
            quarters: Turns of 90° counterclockwise that make it upright.

        Returns:
            None for a layout, a size or colours that the kernel does not know.

        Raises:
            BackendError: The GPU failed, for example for lack of memory.
        """
        numbers = colours(matrix, full=picture.color_range == 2)
        if numbers is None or picture.sw_format.name != "nv12":
            return None
        capsules = [plane.__dlpack__() for plane in picture.planes]
        bright, pairs = map(dlpack.describe, capsules)
        size = bright.shape[0], bright.shape[1]
        if size[0] % 2 or size[1] % 2:
            return None
        source = Nv12(bright.address, bright.strides[0], pairs.address, pairs.strides[0])
        cuda = self._cuda
        with cuda.current():
            memory = self._take(size[0] * size[1] * 3)
            try:
                cuda.call("cudaEventRecord", self._decoded, _DEFAULT_STREAM)
                cuda.wait(self._stream, self._decoded)
                self._kernels.nv12(source, size, numbers, memory.address, self._stream)
                cuda.synchronize(self._stream)
            except BaseException:
                memory.release.close()
                raise
        interface = {
            "shape": (*size, 3),
            "typestr": "|u1",
            "data": (memory.address, True),
            "version": 3,
            "stream": None,  # It is complete.
        }
        array = _Array(turned(interface, lambda array: np.rot90(array, quarters)))
        weakref.finalize(array, self._give, memory).atexit = False
        return DeviceFrame(array, decoded=True)

    def close(self) -> None:
        """Free the memory; that of frames that are in use later."""
        with self._lock:
            self._closed = True
        with contextlib.suppress(BackendError), self._cuda.current():
            while self._free:
                self._free.pop().release.close()
            self._release.close()

    def _take(self, size: int) -> _Memory:
        while True:
            try:
                memory = self._free.pop()
            except IndexError:
                release = contextlib.ExitStack()
                return _Memory(self._cuda.device_memory(size, release), size, release)
            if memory.size == size:
                return memory
            memory.release.close()

    def _give(self, memory: _Memory) -> None:
        # Without a lock: the garbage collector may call this in the middle of anything.
        self._free.append(memory)
        if self._closed:
            with contextlib.suppress(BackendError), self._cuda.current():
                while self._free:
                    self._free.pop().release.close()


class _Array:
    """A frame's array for `DeviceFrame`. Its memory is given back when it is gone."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__cuda_array_interface__ = interface
