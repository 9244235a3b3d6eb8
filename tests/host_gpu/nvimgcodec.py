"""nvImageCodec on a GPU in host memory: pictures are written when the stream of the decoder gets there.

The pixels are those of the real package, which decodes on the CPU here, or of Pillow without it.
"""

import contextlib
import io
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
from host_gpu.cuda import HostCuda
from PIL import Image

# Bytes after each row of a picture of odd height, which the real package may add.
PADDING = 5


class HostNvimgcodec:
    """The module `nvidia.nvimgcodec`, as far as the SDK uses it.

    Args:
        cuda: The GPUs.
        real: The real module, or None.

    Attributes:
        fails: Whether no picture can be decoded.
        decoders: How many decoders were made.
        decoded: How many pictures were decoded.
    """

    def __init__(self, cuda: HostCuda, real: Any = None) -> None:
        self._cuda, self._real = cuda, real
        self.fails, self.decoders, self.decoded = False, 0, 0
        self.__version__ = "0.9.0"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real or _Pillow, name)

    def Decoder(self, device_id=-1, max_num_cpu_threads=0, backends=None, options=""):
        assert device_id == self._cuda.device
        assert self.BackendKind.CPU_ONLY not in [backend.backend_kind for backend in backends]
        cpu = [self.Backend(self.BackendKind.CPU_ONLY)]
        real = (self._real or _Pillow).Decoder(-99999, max_num_cpu_threads, cpu, options)
        self.decoders += 1
        return _Decoder(self, self._cuda, device_id, real)


class _Decoder:
    def __init__(self, module: HostNvimgcodec, cuda: HostCuda, gpu: int, real: Any) -> None:
        self._module, self._cuda, self._gpu, self._real = module, cuda, gpu, real
        self._busy = False

    def decode(self, src, *, image=None, params=None, cuda_stream=0):
        assert not self._busy, "one thread at a time"
        assert image is None
        assert cuda_stream in self._cuda.streams
        self._cuda.check_thread_may_allocate()
        self._busy = True
        try:
            found = self._real.decode(src, params=params)
            if found is None or self._module.fails:
                return None
            self._module.decoded += 1
            return _Image(self._cuda, np.asarray(found), cuda_stream)
        finally:
            self._busy = False


class _Image:
    """A picture in memory that is freed on the stream it was made on."""

    def __init__(self, cuda: HostCuda, content: np.ndarray, stream: int) -> None:
        height, width, channels = content.shape
        pitch = width * channels + (PADDING if height % 2 else 0)
        self._cuda, self._stream = cuda, stream
        status, self._address = cuda.cudaMalloc(height * pitch)
        if status:
            raise RuntimeError("out of memory")
        memory = cuda.at(self._address, height * pitch, "device").reshape(height, pitch)
        rows = memory[:, : width * channels]
        cuda.start(stream, lambda: np.copyto(rows, content.reshape(height, -1)))
        self.__cuda_array_interface__ = {
            "shape": content.shape,
            "strides": (pitch, channels, 1) if height % 2 else None,
            "typestr": "|u1",
            "data": (self._address, False),
            "version": 3,
            "stream": stream,
        }

    def __del__(self) -> None:
        if self._address is None:  # There was no memory.
            return
        assert self._stream in self._cuda.streams, "freed on a stream that is gone"
        cuda, address = self._cuda, self._address

        def free() -> None:
            memory = cuda.memory.pop(address)[0]
            memory[:] = bytes(len(memory))  # Who still reads it sees that.

        cuda.start(self._stream, free)


class _Pillow:
    """The classes of the real module, with Pillow inside."""

    BackendKind = types.SimpleNamespace(CPU_ONLY=1, GPU_ONLY=2, HYBRID_CPU_GPU=3, HW_GPU_ONLY=4)
    ColorSpec = types.SimpleNamespace(SRGB=1)

    class Backend:
        def __init__(self, backend_kind, load_hint=1.0, load_hint_policy=None):
            self.backend_kind = backend_kind

    class DecodeParams:
        def __init__(self, apply_exif_orientation=True, color_spec=1, allow_any_depth=False, sample_format=2):
            assert not apply_exif_orientation

    class CodeStream:
        def __init__(self, bytes):
            self.content = bytes

    class Decoder:
        def __init__(self, device_id=-1, max_num_cpu_threads=0, backends=None, options=""):
            pass

        def decode(self, src, *, image=None, params=None, cuda_stream=0):
            try:
                return np.asarray(Image.open(io.BytesIO(src.content)).convert("RGB"))
            except OSError:
                return None


@contextlib.contextmanager
def installed(name: str, module: Any) -> Iterator[Any]:
    """Let ``import NAME`` give this module; None: it fails."""
    parent = name.partition(".")[0]
    before = {one: sys.modules.get(one) for one in (parent, name)}
    if parent != name and before[parent] is None:
        sys.modules[parent] = types.ModuleType(parent)
    sys.modules[name] = module
    try:
        yield module
    finally:
        for one, old in before.items():
            sys.modules.pop(one, None)
            if old is not None:
                sys.modules[one] = old
