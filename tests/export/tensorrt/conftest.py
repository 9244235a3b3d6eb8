"""Machines for the TensorRT backend: real GPUs, and one whose GPU memory is the host's.

The second has the functions of cuda.bindings and of TensorRT's runtime that the backend calls. They do the
same work on the CPU, where ONNX Runtime computes instead of the engine. They are strict where CUDA would
corrupt memory or return an error: bounds, kinds of memory, freed pointers, captures, shapes. Work on a
stream takes effect only at a synchronisation, so that a missing call is seen. Whether the real libraries
agree is tested on a GPU with the same tests (`make test-gpu`); test_tensorrt.py checks that every name
exists in the real bindings.
"""

import contextlib
import ctypes
import dataclasses
import json
import math
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.to_trt import Options, compile_engine
from pixelclip_sdk import BackendUnavailableError, Bundle
from pixelclip_sdk.backends import tensorrt as backend_module
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import ENGINES, FLAVORS, RTX_CAPABILITIES, EngineInfo, runs_on
from pixelclip_sdk.backends.trt import load_tensorrt
from pixelclip_sdk.models import find_bundle

STRIDE = 32
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2


class HostCuda:
    """`cuda.bindings.runtime` of a GPU in host memory."""

    cudaStreamNonBlocking = 1
    cudaError_t = types.SimpleNamespace(cudaSuccess=0)
    cudaMemcpyKind = types.SimpleNamespace(
        cudaMemcpyHostToDevice=HOST_TO_DEVICE, cudaMemcpyDeviceToHost=DEVICE_TO_HOST
    )
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        self.memory: dict[int, tuple[ctypes.Array, str]] = {}
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.counts = {"upload": 0, "capture": 0, "launch": 0, "enqueue": 0}
        self.room = 1 << 40
        self.refuse_capture = False
        self.pending: list[Callable[[], None]] = []
        self.lost_at: int | None = None  # This synchronisation fails, and the work before it is lost.
        self.kept_graphs = 0  # So many graphs refuse to be destroyed.
        self.before_synchronize: Callable[[], object] = lambda: None

    def start(self, stream: int, work: Callable[[], None]) -> None:
        """Queue work; it is done at the next synchronisation."""
        assert stream in self.streams
        self.pending.append(work)

    def finish(self) -> None:
        """Do all queued work."""
        while self.pending:
            self.pending.pop(0)()

    def at(self, address: int, size: int, kind: str) -> np.ndarray:
        """The bytes at an address, if that many of that kind are there."""
        for start, (memory, found) in self.memory.items():
            if start <= address and address + size <= start + len(memory):
                assert found == kind, f"{found} memory where {kind} memory is needed"
                return np.frombuffer(memory, np.uint8)[address - start :][:size]
        raise AssertionError(f"{size} bytes of {kind} memory at {address}: no such allocation")

    def cudaGetDeviceCount(self):
        return 0, 1

    def cudaGetDeviceProperties(self, index):
        return 0, types.SimpleNamespace(name=b"host memory", major=8, minor=6)

    def cudaGetDevice(self):
        return 0, 0

    def cudaSetDevice(self, index):
        return ((0 if index == 0 else 101),)

    def cudaGetErrorString(self, status):
        return 0, b"out of memory" if status == 2 else b"some error"

    def cudaMemGetInfo(self):
        used = sum(len(memory) for memory, _ in self.memory.values())
        return 0, self.room - used, self.room

    def _allocate(self, size, kind):
        if size > self.cudaMemGetInfo()[1]:
            return 2, None
        memory = (ctypes.c_uint8 * size)()
        ctypes.memset(memory, 0xAB, size)  # Not zero: nothing may rely on that.
        self.memory[ctypes.addressof(memory)] = memory, kind
        return 0, ctypes.addressof(memory)

    def _free(self, address, kind):
        self.finish()  # As CUDA does.
        assert self.memory.pop(address)[1] == kind
        return (0,)

    def cudaMalloc(self, size):
        return self._allocate(size, "device")

    def cudaMallocHost(self, size):
        return self._allocate(size, "pinned")

    def cudaFree(self, address):
        return self._free(address, "device")

    def cudaFreeHost(self, address):
        return self._free(address, "pinned")

    def cudaStreamCreateWithFlags(self, flags):
        self.streams.add(len(self.streams) + 7)
        return 0, max(self.streams)

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream)
        return (0,)

    def cudaStreamSynchronize(self, stream):
        assert stream in self.streams
        assert self.captured is None
        self.before_synchronize()
        if self.lost_at is not None:
            self.lost_at -= 1
            if self.lost_at < 0:
                self.pending.clear()
                self.lost_at = None
                return (700,)
        self.finish()
        return (0,)

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        assert stream in self.streams
        assert self.captured is None
        kinds = ("device", "pinned") if kind == HOST_TO_DEVICE else ("pinned", "device")
        to, origin = self.at(target, size, kinds[0]), self.at(source, size, kinds[1])
        self.start(stream, lambda: np.copyto(to, origin))
        self.counts["upload"] += kind == HOST_TO_DEVICE
        return (0,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert self.captured is None
        self.captured = []
        return (0,)

    def cudaStreamEndCapture(self, stream):
        recorded, self.captured = self.captured, None
        if self.refuse_capture:
            return 901, None
        self.counts["capture"] += 1
        self.graphs[handle := id(recorded)] = recorded
        return 0, handle

    def cudaGraphInstantiate(self, graph, flags):
        self.graphs[handle := -graph] = self.graphs[graph]
        return 0, handle

    def cudaGraphLaunch(self, graph, stream):
        self.counts["launch"] += 1
        for work in self.graphs[graph]:
            self.start(stream, work)
        return (0,)

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return (0,)

    def cudaGraphExecDestroy(self, graph):
        if self.kept_graphs:
            self.kept_graphs -= 1
            return (700,)
        return self.cudaGraphDestroy(graph)


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
        count, height, width, _ = self.shapes["image"]
        grid = (height // STRIDE, width // STRIDE)
        classes, dim = self.shapes["text"]
        return (count, classes, *grid) if name == "logits" else (count, *grid, dim)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        cuda = self.engine.cuda
        assert stream in cuda.streams
        assert self.scratch, "no memory for activations"
        cuda.counts["enqueue"] += 1
        shapes = dict(self.shapes)
        if cuda.captured is None:
            self.ran_with = shapes
            cuda.start(stream, lambda: self._run(shapes))
        else:
            assert self.ran_with == shapes, "TensorRT wants one run before a capture"
            cuda.captured.append(lambda: self._replay(shapes))
        return True

    def _replay(self, shapes):
        assert shapes == self.shapes, "the graph is of another shape than the context"
        self._run(shapes)

    def _run(self, shapes):
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
            tensor(name, self.get_tensor_shape(name), np.float32)[:] = result


HostCuda.context = HostContext  # For tests that change what it computes.


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
        self._session = onnxruntime.InferenceSession(find_bundle("pixelclip-lite").file("image_encoder.onnx"))

    def Runtime(self, logger):
        def deserialize_cuda_engine(content):
            info = self._info(content)
            self.__version__ = info.tensorrt_version
            return HostEngine(self.cuda, self._session, info)

        return types.SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


@dataclasses.dataclass
class Machine:
    """Where the backend is tested.

    Attributes:
        flavor: Of TensorRT.
        cuda: The GPU in host memory; None on a real one.
    """

    flavor: str
    cuda: HostCuda | None

    def compile(self, folder: Path, options: Options) -> Path:
        """A copy of the bundled model in `folder`, with an engine."""
        shutil.copytree(find_bundle("pixelclip-lite").path, folder, ignore=lambda *_: [ENGINES])
        if self.cuda is None:
            compile_engine(Bundle.open(folder), self.flavor, folder / ENGINES, options)
            return folder
        plan = compile_engine(Bundle.open(folder), "tensorrt-rtx", folder / ENGINES, options)
        sidecar = plan.with_suffix(".json")
        # TensorRT compiles on a GPU only, so its engine here is one by name.
        sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"flavor": self.flavor}))
        return folder

    def free_memory(self) -> int:
        """Bytes of the GPU that nobody has."""
        from cuda.bindings import runtime

        return int(runtime.cudaMemGetInfo()[1])


_MACHINES = [
    *(pytest.param((flavor, False), id=f"host-{flavor}") for flavor in FLAVORS),
    *(pytest.param((flavor, True), id=f"gpu-{flavor}", marks=pytest.mark.gpu) for flavor in FLAVORS),
]


@pytest.fixture(scope="module", params=_MACHINES)
def machine(request) -> Machine:
    """Each flavour of TensorRT, on host memory and (marked gpu) on a GPU."""
    flavor, real = request.param
    if real:
        try:
            load_tensorrt(flavor)
            capability = Cuda().gpu.compute_capability
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        if flavor == "tensorrt-rtx" and not runs_on(RTX_CAPABILITIES, capability):
            pytest.skip(f"TensorRT-RTX runs on {RTX_CAPABILITIES}; this GPU has {capability}")
        yield Machine(flavor, None)
        return
    pytest.importorskip("tensorrt_rtx")
    cuda = HostCuda()
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyError):
        patch.setitem(sys.modules, "cuda.bindings", types.SimpleNamespace(runtime=cuda, driver=cuda))
        plans: dict[bytes, EngineInfo] = {}
        read = EngineInfo.read

        def remember(plan: Path) -> EngineInfo:
            info = read(plan)
            plans[plan.read_bytes()] = info
            trt.__version__ = info.tensorrt_version
            return info

        trt = HostTensorRT(cuda, plans.__getitem__)
        patch.setattr(backend_module, "load_tensorrt", lambda _: trt)
        patch.setattr(backend_module.EngineInfo, "read", remember)
        yield Machine(flavor, cuda)
