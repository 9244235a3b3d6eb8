"""PyAV on a GPU in host memory: frames that the CPU decoded, handed out as by its decoder for NVIDIA's GPUs.

The decoder writes on CUDA's default stream, and uses the memory of a frame again as soon as it is gone.
"""

import types
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from host_gpu.cuda import HostCuda
from numpy.lib.stride_tricks import as_strided

DEFAULT_STREAM = 1
_PADDING = 32


class HostAv:
    """The module `av`. What was opened without an `HWAccel` is PyAV's own.

    Attributes:
        broken: Whether the GPU has no decoder.
        software: From this frame on, the decoder falls back to the CPU.
        decoded: Frames that the GPU decoded.
    """

    def __init__(self, cuda: HostCuda) -> None:
        self._cuda = cuda
        self.broken, self.software, self.decoded = False, 1 << 30, 0
        self.video = types.SimpleNamespace(reformatter=types.SimpleNamespace(VideoReformatter=_Reformatter))

    def __getattr__(self, name: str) -> Any:
        return getattr(av, name)

    def open(self, *arguments: Any, hwaccel: Any = None, **options: Any) -> Any:
        if hwaccel is None:
            return av.open(*arguments, **options)
        assert hwaccel.is_hw_owned
        assert hwaccel.device_id == self._cuda.device
        assert hwaccel.options == {"primary_ctx": "0", "current_ctx": "1"}
        if self.broken:
            raise av.error.PermissionError(1, "Operation not permitted")
        return _Container(av.open(*arguments, **options), self, self._cuda)


class _Proxy:
    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Reformatter:
    def __init__(self) -> None:
        self._real = av.video.reformatter.VideoReformatter()

    def reformat(self, frame: Any, **options: Any) -> Any:
        """As PyAV, which copies a frame from the GPU first."""
        return self._real.reformat(getattr(frame, "_real", frame), **options)


class _Container(_Proxy):
    def __init__(self, real: Any, module: HostAv, cuda: HostCuda) -> None:
        super().__init__(real)
        self._module, self._cuda = module, cuda
        self.streams = [_Stream(stream) for stream in real.streams]

    def demux(self, stream: Any) -> Iterator[Any]:
        for packet in self._real.demux(stream._real):
            yield _Packet(packet, self._module, self._cuda)


class _Stream(_Proxy):
    @property
    def codec_context(self) -> Any:
        return _Context(self._real.codec_context)


class _Context(_Proxy):
    @property
    def is_hwaccel(self) -> bool:
        return any(one.device_type.name == "cuda" for one in self._real.codec.hardware_configs)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_real":
            object.__setattr__(self, name, value)
        else:
            setattr(self._real, name, value)


class _Packet(_Proxy):
    def __init__(self, real: Any, module: HostAv, cuda: HostCuda) -> None:
        super().__init__(real)
        self._module, self._cuda = module, cuda

    def decode(self) -> list[Any]:
        self._cuda.check_thread_may_allocate()
        return [self._picture(frame) for frame in self._real.decode()]

    def _picture(self, frame: Any) -> Any:
        self._module.decoded += 1
        if self._module.decoded > self._module.software:
            return frame
        return _Picture(frame, self._cuda)


class _Picture(_Proxy):
    """A frame of format ``"cuda"``."""

    def __init__(self, real: Any, cuda: HostCuda) -> None:
        super().__init__(real)
        self.format = av.VideoFormat("cuda")
        self.sw_format = av.VideoFormat("nv12" if real.format.name in ("yuv420p", "yuvj420p") else "yuv444p")
        self._planes: list[_Plane] = []
        if self.sw_format.name == "nv12":
            # Samples stay as they are: the same range on both sides.
            same = {"src_color_range": real.color_range, "dst_color_range": real.color_range}
            planes = real.reformat(format="nv12", **same).planes
            self._planes = [_Plane(plane, i, cuda) for i, plane in enumerate(planes)]

    @property
    def planes(self) -> tuple[Any, ...]:
        return tuple(self._planes)

    def __del__(self) -> None:
        for plane in self._planes:
            plane.reuse()


class _Plane:
    def __init__(self, plane: Any, index: int, cuda: HostCuda) -> None:
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        used = plane.width if index == 0 else 2 * plane.width
        self._memory = np.full((plane.height, used + _PADDING), 0xAB, np.uint8)
        self._seen = self._memory[:, :used]
        seen, content = self._seen, rows[:, :used].copy()
        cuda.start(DEFAULT_STREAM, lambda: np.copyto(seen, content))
        if index:
            self._seen = as_strided(seen, (plane.height, plane.width, 2), (used + _PADDING, 2, 1))

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        if stream is not None:
            raise NotImplementedError("CUDA stream synchronization is not supported.")
        return self._seen.__dlpack__()

    def reuse(self) -> None:
        self._memory.fill(7)
