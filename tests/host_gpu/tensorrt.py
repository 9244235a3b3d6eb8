"""TensorRT's runtime on a GPU in host memory: what the backend calls, with ONNX Runtime for the engine.

It is strict where TensorRT returns an error or does harm: shapes, memory for activations, captures. That
every name exists in the real bindings is tested in `tests/export/tensorrt/test_tensorrt.py`.
"""

import dataclasses
import math
import types
from collections.abc import Callable

import numpy as np
import onnxruntime
from host_gpu.cuda import HostCuda

from pixelclip_sdk.backends.engine import EngineInfo
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.models import find_bundle

STRIDE = 32


class HostContext:
    """`IExecutionContext`: ONNX Runtime on what lies at the tensors' addresses."""

    def __init__(self, engine: "HostEngine", config: object) -> None:
        self.engine, self.config = engine, config
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = config is not None
        self.ran_with: dict[str, tuple[int, ...]] | None = None

    def set_device_memory(self, memory, size):
        self.engine.cuda.at(memory, size, "device")
        self.scratch = True

    def set_input_shape(self, name, shape):
        least, _, most = self.engine.info.tensor(name).profile
        self.shapes[name] = tuple(shape)
        return all(low <= side <= high for low, side, high in zip(least, shape, most, strict=True))

    def infer_shapes(self):
        return [name for name in ("image", "text") if name not in self.shapes]

    def get_tensor_shape(self, name):
        return output_shape(name, self.shapes)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        cuda = self.engine.cuda
        assert self.scratch, "no memory for activations"
        cuda.counts["enqueue"] += 1
        shapes = dict(self.shapes)
        recorded = stream in cuda.recordings
        if not recorded:
            self.ran_with = shapes
        assert self.ran_with == shapes, "TensorRT wants one run before a capture"

        def work() -> None:
            assert not recorded or shapes == self.shapes, "the graph is of another shape than the context"
            self.compute(shapes)

        cuda.start(stream, work)
        return True

    def compute(self, shapes):
        """Write the outputs for inputs of these shapes."""

        def tensor(name, shape, dtype):
            size = math.prod(shape) * np.dtype(dtype).itemsize
            return self.engine.cuda.at(self.addresses[name], size, "device").view(dtype).reshape(shape)

        inputs = {
            "image": tensor("image", shapes["image"], np.uint8),
            "text": tensor("text", shapes["text"], np.float32),
        }
        for name, result in zip(
            ("logits", "features"), self.engine.session.run(["logits", "features"], inputs), strict=True
        ):
            tensor(name, output_shape(name, shapes), np.float32)[:] = result


def output_shape(name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Of an output, for inputs of these shapes."""
    count, height, width, _ = shapes["image"]
    grid = (height // STRIDE, width // STRIDE)
    classes, dim = shapes["text"]
    return (count, classes, *grid) if name == "logits" else (count, *grid, dim)


@dataclasses.dataclass
class HostEngine:
    """`ICudaEngine`."""

    cuda: HostCuda
    session: onnxruntime.InferenceSession
    info: EngineInfo
    device_memory_size_v2: int = 1000

    def create_runtime_config(self):
        return types.SimpleNamespace(cuda_graph_strategy="none")

    def create_execution_context(self, strategy="static", runtime_config=None):
        assert (strategy == "user") == (self.info.flavor == "tensorrt")
        assert (runtime_config is not None) == (self.info.flavor == "tensorrt-rtx")
        return HostContext(self, runtime_config)


class HostTensorRT:
    """The module `tensorrt`, or `tensorrt_rtx`, as far as the backend uses it."""

    ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="user")
    CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(self, cuda: HostCuda, info: Callable[[bytes], EngineInfo]) -> None:
        self.cuda = cuda
        self._info = info
        self._session = onnxruntime.InferenceSession(find_bundle("pixelclip-lite").file(IMAGE_ENCODER))

    def Runtime(self, logger):
        def deserialize_cuda_engine(content):
            info = self._info(content)
            self.__version__ = info.tensorrt_version
            return HostEngine(self.cuda, self._session, info)

        return types.SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)
