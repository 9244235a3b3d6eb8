"""ONNX Runtime's CUDA provider on a GPU in host memory: sessions whose bound runs are work on a stream."""

import functools
import math
import threading
from typing import Any

import numpy as np
import onnxruntime
from host_gpu.cuda import GLOBAL, HostCuda

NAME = "CUDAExecutionProvider"


class HostOnnx:
    """The module `onnxruntime`, as far as the CUDA backend uses it."""

    def __init__(self, cuda: HostCuda) -> None:
        self._cuda = cuda
        self.sessions: list[HostSession] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(onnxruntime, name)

    def get_available_providers(self) -> list[str]:
        return [NAME, "CPUExecutionProvider"]

    def preload_dlls(self) -> None:
        pass

    def InferenceSession(self, content, options, providers, enable_fallback):
        if providers == ["CPUExecutionProvider"]:
            return onnxruntime.InferenceSession(content, options, providers, enable_fallback=enable_fallback)
        status = HostCuda.cudaDeviceSynchronize.__wrapped__(self._cuda)[0]  # The provider's, so no site.
        assert status == 0, "the provider waits for the whole GPU"
        session = HostSession(self._cuda, content, dict(providers)[NAME])
        self.sessions.append(session)
        return session


@functools.lru_cache(maxsize=2)
def _loaded(content: bytes) -> onnxruntime.InferenceSession:
    """The same model on the CPU, loaded once."""
    plain = onnxruntime.SessionOptions()
    plain.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, plain, ["CPUExecutionProvider"])


class HostSession:
    """`InferenceSession`: what was bound is read and written when the stream gets there.

    As in ONNX Runtime 1.31, graphs are kept for each thread, and recorded in the mode "global".

    Attributes:
        threads: The threads that ran it. Each has cuBLAS, cuDNN and graphs of its own, for ever.
        graphs: What was bound when a thread recorded a graph, by thread and number.
    """

    def __init__(self, cuda: HostCuda, content: bytes, options: dict[str, Any]) -> None:
        self.cuda, self.options = cuda, options
        self.stream = int(options["user_compute_stream"])
        assert self.stream in cuda.streams
        self._session = _loaded(content)
        self.threads: set[int] = set()
        self.graphs: dict[tuple[int, str], Any] = {}
        self.fails = False

    def get_providers(self):
        return [NAME, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self):
        return []

    def run(self, names, inputs, options):
        assert options.get_run_config_entry("gpu_graph_id") == "-1", "a graph needs bound memory"
        self.threads.add(threading.get_ident())
        return self._session.run(names, inputs)

    def io_binding(self):
        return HostBinding()

    def run_with_iobinding(self, binding, options):
        if self.fails:
            raise RuntimeError("CUDA failure 2: out of memory")
        self.cuda.counts["run"] += 1
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        graph = options.get_run_config_entry("gpu_graph_id")
        key = threading.get_ident(), graph
        self.threads.add(key[0])
        if graph != "-1" and self.options["enable_cuda_graph"] == "1":
            if key in self.graphs:
                self.cuda.counts["replay"] += 1
            else:
                self._record()
            bound = self.graphs.setdefault(key, dict(binding.tensors))
            assert bound == binding.tensors, "a graph has its addresses and shapes for ever"
        tensors = dict(binding.tensors)
        self.cuda.start(self.stream, lambda: self._compute(tensors))

    def _record(self) -> None:
        cuda = self.cuda
        (status, *_) = HostCuda.cudaStreamSynchronize.__wrapped__(cuda, self.stream)
        if status:
            raise RuntimeError(f"CUDA failure {status}")
        cuda.cudaStreamBeginCapture(self.stream, GLOBAL)
        try:
            cuda.while_recording()
        finally:
            status, _ = cuda.cudaStreamEndCapture(self.stream)
        if status:
            raise RuntimeError(
                f"CUDA failure {status}: operation failed due to a previous error during capture"
            )

    def _compute(self, tensors: dict[str, tuple[int, tuple[int, ...], Any]]) -> None:
        def view(name: str) -> np.ndarray:
            address, shape, dtype = tensors[name]
            size = math.prod(shape) * np.dtype(dtype).itemsize
            return self.cuda.at(address, size, "device").view(dtype).reshape(shape)

        given = {"image": view("image"), "text": view("text")}
        view("logits")[:] = self._session.run(["logits"], given)[0]


class HostBinding:
    """`IOBinding`."""

    def __init__(self) -> None:
        self.tensors: dict[str, tuple[int, tuple[int, ...], Any]] = {}

    def bind_input(self, name, device, index, dtype, shape, address):
        assert device == "cuda"
        self.tensors[name] = address, tuple(shape), dtype

    bind_output = bind_input
