"""A machine with GPUs in host memory, and with ONNX Runtime's CUDA provider on them."""

import contextlib
import sys
import types
from collections.abc import Iterator
from unittest import mock

from host_gpu.cuda import HostCuda
from host_gpu.nvimgcodec import installed
from host_gpu.onnx import HostOnnx

from pixelclip_sdk.backends import onnx as onnx_module
from pixelclip_sdk.device import pipeline as pipeline_module


@contextlib.contextmanager
def machine(gpus: int = 1) -> Iterator[tuple[HostCuda, HostOnnx]]:
    """Let the SDK see these GPUs, without nvImageCodec. It loads models with ``backend="onnx-cuda"``."""
    cuda = HostCuda(gpus)
    onnx = HostOnnx(cuda)
    # Not mock.patch.dict, which forgets all modules that were imported meanwhile.
    before = sys.modules.get("cuda.bindings")
    sys.modules["cuda.bindings"] = types.SimpleNamespace(runtime=cuda, driver=cuda)  # type: ignore[assignment]
    with (
        installed("nvidia.nvimgcodec", None),
        mock.patch.object(onnx_module, "_onnxruntime", return_value=onnx),
        mock.patch.object(pipeline_module, "compiled", return_value=b"code"),
    ):
        try:
            yield cuda, onnx
        finally:
            del sys.modules["cuda.bindings"]
            if before is not None:
                sys.modules["cuda.bindings"] = before
