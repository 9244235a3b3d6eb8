"""A GPU in host memory, with ONNX Runtime's CUDA provider on it."""

import contextlib
import dataclasses
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from host_gpu.cuda import HostCuda
from host_gpu.kernels import compiler
from host_gpu.onnx import HostOnnx

from pixelclip_sdk import Segmenter
from pixelclip_sdk.backends import onnx as onnx_module
from pixelclip_sdk.device import dlpack
from pixelclip_sdk.device import pipeline as pipeline_module

# Of a tenth of the pixels, which saves nine tenths of the time.
_SMALL: dict[str, Any] = {"input_size": (96, 128), "threads": 1}


@dataclasses.dataclass
class Gpu:
    """The machine of these tests.

    Attributes:
        cuda: Its CUDA.
        onnx: Its onnxruntime.
        load: Loads the bundled model with ``backend="onnx-cuda"``.
    """

    cuda: HostCuda
    onnx: HostOnnx
    load: Callable[..., Segmenter]


@pytest.fixture(scope="module")
def cpu() -> Iterator[Segmenter]:
    """The same model and words on the CPU."""
    words = ["cat", "sofa", "grass"]
    with Segmenter.from_pretrained("pixelclip-lite", classes=words, refine="off", **_SMALL) as loaded:
        yield loaded


@pytest.fixture
def gpu(monkeypatch, cpu) -> Iterator[Gpu]:
    if compiler() is None:
        pytest.skip("there is no C++ compiler (g++ or clang++)")
    cuda = HostCuda(gpus=2)
    onnx = HostOnnx(cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings", types.SimpleNamespace(runtime=cuda, driver=cuda))
    monkeypatch.setattr(onnx_module, "_onnxruntime", lambda: onnx)
    monkeypatch.setattr(pipeline_module, "compiled", lambda _: b"code")
    with contextlib.ExitStack() as stack:

        def load(**options: Any) -> Segmenter:
            options = _SMALL | {"classes": cpu.vocabulary, "refine": "off"} | options
            options["backend"] = "onnx-cuda"
            return stack.enter_context(Segmenter.from_pretrained("pixelclip-lite", **options))

        yield Gpu(cuda, onnx, load)


class InterfaceArray:
    """An array of another library, by ``__cuda_array_interface__``. `write` fills it on a stream."""

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
    """An array of another library, by ``__dlpack__``, like a tensor of PyTorch."""

    def __init__(self, cuda: HostCuda, content: np.ndarray, *, stream: int) -> None:
        super().__init__(cuda, content, stream=stream)
        del self.__cuda_array_interface__
        self._shape, self._dtype = content.shape, content.dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        if stream != -1:
            _, event = self._cuda.cudaEventCreateWithFlags(0)
            self._cuda.cudaEventRecord(event, self.stream)
            self._cuda.cudaStreamWaitEvent(stream, event, 0)
        return dlpack.export(self.address, self._shape, self._dtype, self.__dlpack_device__(), self)


@pytest.fixture
def arrays() -> types.SimpleNamespace:
    """The kinds of arrays of other libraries."""
    return types.SimpleNamespace(interface=InterfaceArray, dlpack=DlpackArray)
