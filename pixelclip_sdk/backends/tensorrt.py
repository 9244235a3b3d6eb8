"""TensorRT engines on NVIDIA GPUs without torch, for either flavour of TensorRT.

Buffers are allocated once, for the largest shapes of the engine, so that addresses never change and CUDA
graphs stay valid. Text embeddings stay on the GPU until they change. Threads take turns with one lock:
parallel calls would not be faster on one GPU.
"""

import contextlib
import functools
import logging
import math
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend, Float32Array
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.encoder import BATCH, DeviceEncoder, Encoded
from pixelclip_sdk.backends.engine import EngineInfo
from pixelclip_sdk.backends.fork import keep_in_children
from pixelclip_sdk.backends.limits import IMAGE, TEXT, Limits, TextSlot, padded
from pixelclip_sdk.backends.trt import load_tensorrt, make_logger, one_line
from pixelclip_sdk.bundle import IMAGE_ENCODER, Bundle
from pixelclip_sdk.errors import BackendError

_log = logging.getLogger(__name__)

_OUTPUTS = ("logits", "features")
# Each shape costs an execution context. A camera has two shapes, for one image and for four, and the number
# of words changes rarely.
_SHAPES_KEPT = 8
Shape = tuple[int, ...]
Shapes = dict[str, Shape]


class TensorRTBackend(Backend):
    """An engine that `export/to_trt.py` compiled from a bundle, with its sidecar beside it.

    Batches above the engine's maximum are split, batches below its minimum are padded. `gpu` is CUDA's number
    of the GPU. `plan`, `info` and `compute_capability` are attributes too. Raises BackendUnavailableError if
    TensorRT, cuda-bindings or the GPU is missing, and BackendError if the engine is damaged, does not load,
    or was compiled for something else.
    """

    name = "tensorrt"

    def __init__(self, plan: Path, *, bundle: Bundle, gpu: int = 0) -> None:
        info = EngineInfo.read(plan)
        limits = Limits.of(info, bundle.embedding_dim)
        multiple, width = bundle.input.multiple, bundle.embedding_dim
        super().__init__(embedding_dim=width, multiple=multiple, fixed_size=limits.fixed_size)
        info.check_bundle(plan, onnx_sha256=bundle.files[IMAGE_ENCODER]["sha256"], bundle=bundle.path)
        bundle.file(IMAGE_ENCODER)  # Checks that the file still has the hash of the manifest.
        trt = load_tensorrt(info.flavor)
        info.check_tensorrt(plan, flavor=info.flavor, version=trt.__version__, bundle=bundle.path)
        cuda = Cuda(gpu)
        info.check_gpu(plan, compute_capability=cuda.gpu.compute_capability, bundle=bundle.path)
        self.plan, self.info = plan, info
        self.compute_capability = cuda.gpu.compute_capability
        self._limits = limits
        self.max_classes = limits.classes[1]
        self._hint = f"Compile another: {info.rebuild_command(plan, bundle.path)}, with larger numbers"
        self._description = (
            f"{info.flavor} {info.tensorrt_version}, {info.precision}, on {cuda.gpu.name} (gpu:{gpu})"
        )
        self._lock = threading.RLock()
        self._session = _Session(plan, info, limits, trt, cuda)
        self._encoder = _Encoder(self._session, self._lock, self)
        # Also runs without close, at the end of the program while CUDA is still loaded.
        keep_in_children(self._session)
        close = functools.partial(self._session.close, self._encoder.attached)
        self._release = weakref.finalize(self, self._encoder.close_finally, close)

    @property
    def description(self) -> str:
        """Human-readable flavour and version of TensorRT, precision and GPU."""
        return self._description

    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        texts = self._limits.texts(len(text), self._hint)
        return self._run("logits", images, text, texts)[:, : len(text)]

    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        return self._run("features", images, None, self._limits.classes[0])

    def _run(
        self, output: str, images: npt.NDArray[np.uint8], text: Float32Array | None, texts: int
    ) -> Float32Array:
        self._limits.check_size(images.shape[1], images.shape[2], self._hint)
        with self._lock:
            self._check_open()
            try:
                with self._session.cuda.current():
                    self._session.put_text(text, texts)
                    parts = [
                        self._session.run(output, images[piece], given)
                        for piece, given in self._limits.pieces(len(images))
                    ]
            except (RuntimeError, TypeError, ValueError) as error:  # Raised by TensorRT's bindings.
                raise BackendError(
                    f"{self.description} failed on images {images.shape}: {one_line(str(error))}"
                ) from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def device_encoder(self) -> DeviceEncoder:
        """This engine, for images and logits in the GPU's memory."""
        return self._encoder

    def close(self) -> None:
        """Free the GPU's memory after the current call has finished."""
        with self._lock:
            super().close()
            self._release()


class _Encoder(DeviceEncoder):
    """See `DeviceEncoder`."""

    def __init__(self, session: "_Session", lock: Any, backend: TensorRTBackend) -> None:
        least, most = backend._limits.batch
        batches = tuple(sorted({least, min(max(BATCH, least), most)}))
        super().__init__(session.cuda, session.stream, lock, batches)
        self._session, self._backend = session, weakref.proxy(backend)

    def encode(self, images: Sequence[int], size: tuple[int, int], text: Float32Array) -> Encoded:
        backend, session = self._backend, self._session
        backend._check_open()
        backend._limits.check_size(*size, backend._hint)
        backend._limits.texts(len(text), backend._hint)  # Refuses too many.
        least, most = backend._limits.classes
        batch = self._batch(len(images))
        try:
            session.put_text(text, min(max(padded(len(text)), least), most))
            return session.encode(images, size, batch)
        except (RuntimeError, TypeError, ValueError) as error:  # Raised by TensorRT's bindings.
            many = "an image" if batch == 1 else f"{batch} images"
            raise BackendError(
                f"{backend.description} failed on {many} of {size}: {one_line(str(error))}"
            ) from error


class _Session:
    """An engine on a GPU with its buffers. Not thread-safe."""

    def __init__(self, plan: Path, info: EngineInfo, limits: Limits, trt: Any, cuda: Cuda) -> None:
        self.cuda = cuda
        self._process = os.getpid()
        self._trt = trt
        # TensorRT-RTX records CUDA graphs by itself, once its kernels for a shape are compiled.
        self._records_itself = info.flavor == "tensorrt-rtx"
        self._logger = make_logger(trt)
        self._slot = TextSlot()
        self._texts = limits.classes[0]
        self._device: dict[str, int] = {}
        self._host: dict[str, npt.NDArray[np.uint8]] = {}
        self._release = contextlib.ExitStack()
        self._runtime: Any = None
        self._engine: Any = None
        self.stream: Any = None
        self._first: Any = None
        self._executions: dict[Shape, _Execution] = {}  # The most recently used is last.
        try:
            with cuda.current():
                self._load(plan)
                self._allocate(info)
        except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            self.close()
            reason = self._logged_errors(one_line(str(error)))
            raise BackendError(f"{plan} does not load: {reason}") from error
        except BaseException:
            self.close()
            raise

    def put_text(self, text: Float32Array | None, texts: int) -> None:
        """Copy embeddings to the GPU, padded with zeros to `texts` rows; None keeps the current content."""
        if text is None:
            self._texts = max(self._texts, texts)
            return
        if not (self._slot.holds(text) and self._texts == texts):
            self._slot.forget()  # The content is unknown until the copy is complete.
            host = self._host[TEXT][: texts * text.shape[1] * 4]
            rows = host.view(np.float32).reshape(texts, text.shape[1])
            rows[: len(text)] = text
            rows[len(text) :] = 0
            self.cuda.upload(host, self._device[TEXT], self.stream)
            self.cuda.synchronize(self.stream)
            self._slot.remember(text)
        self._texts = texts

    def run(self, output: str, images: npt.NDArray[np.uint8], given: int) -> Float32Array:
        """Compute one output for images `(N, H, W, 3)`, padded to `given` images, and the current texts."""
        shapes: Shapes = {IMAGE: (given, *images.shape[1:]), TEXT: (self._texts, *self._text_width)}
        size = math.prod(shapes[IMAGE])
        host = self._host[IMAGE][:size]
        host[: images.size] = images.reshape(-1)
        host[images.size :] = 0
        execution = self._execution(shapes)
        self.cuda.upload(host, self._device[IMAGE], self.stream)
        execution.start()
        shape = execution.shape(output)
        answer = self._host[output][: math.prod(shape) * 4]
        self.cuda.download(self._device[output], answer, self.stream)
        self.cuda.synchronize(self.stream)
        if not self._records_itself:
            execution.record()
        # A copy: the next frame overwrites the buffer.
        return answer.view(np.float32).reshape(shape)[: len(images)].copy()

    def encode(self, images: Sequence[int], size: tuple[int, int], given: int) -> Encoded:
        """Start to compute the logits of images on the GPU, padded to `given`, and the current texts."""
        shapes: Shapes = {IMAGE: (given, *size, 3), TEXT: (self._texts, *self._text_width)}
        execution = self._execution(shapes)
        length = math.prod(size) * 3
        for i, image in enumerate(images):
            self.cuda.copy(image, self._device[IMAGE] + i * length, length, self.stream)
        execution.start()
        if not self._records_itself and execution.wants_to_record:
            self.cuda.synchronize(self.stream)
            execution.record()
        _, texts, height, width = execution.shape("logits")
        logits, step = self._device["logits"], texts * height * width * 4
        return Encoded(tuple(logits + i * step for i in range(len(images))), (height, width))

    def close(self, attached: contextlib.ExitStack | None = None) -> None:
        """Free everything: `attached`, then the engine's objects, then the memory that they use."""
        if os.getpid() != self._process:
            return  # A forked child cannot use its parent's GPU context.
        with contextlib.suppress(BackendError), self.cuda.current():
            if self.stream is not None:
                with contextlib.suppress(BackendError):
                    self.cuda.synchronize(self.stream)  # `encode` leaves work behind.
            if attached is not None:
                attached.close()
            with contextlib.suppress(BackendError), contextlib.ExitStack() as closed:
                while self._executions:  # All are closed, even if closing one fails.
                    closed.callback(self._executions.popitem()[1].close)
            self._first = self._engine = self._runtime = None
            self._release.close()

    def _load(self, plan: Path) -> None:
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise BackendError(f"{plan} does not load: {self._logged_errors('TensorRT gave no reason')}")
        self.stream = self.cuda.stream(self._release)
        if not self._records_itself:
            # Contexts take turns on one stream, so they share one piece of memory for activations.
            self._scratch_size = int(self._engine.device_memory_size_v2)
            self._scratch = self.cuda.device_memory(max(self._scratch_size, 1), self._release)

    def _allocate(self, info: EngineInfo) -> None:
        profiles = {name: info.tensor(name).profile for name in (IMAGE, TEXT)}
        largest: Shapes = {name: profile[2] for name, profile in profiles.items() if profile}
        self._text_width = largest[TEXT][1:]
        sizes = {IMAGE: math.prod(largest[IMAGE]), TEXT: math.prod(largest[TEXT]) * 4}
        # Only a context knows the largest sizes of the outputs. It is reused for the first shape.
        self._first = self._new_context()
        _set_shapes(self._first, largest)
        for name in _OUTPUTS:
            sizes[name] = math.prod(tuple(self._first.get_tensor_shape(name))) * 4
        for name, size in sizes.items():
            self._device[name] = self.cuda.device_memory(size, self._release)
            self._host[name] = self.cuda.pinned_memory(size, self._release)
        # `features` may run before any words are set. It drops the cosines with these zeros.
        self._host[TEXT][:] = 0
        self.cuda.upload(self._host[TEXT], self._device[TEXT], self.stream)
        self.cuda.synchronize(self.stream)

    def _execution(self, shapes: Shapes) -> "_Execution":
        # TensorRT needs a context per graph. TensorRT-RTX compiles kernels per context and handles the graphs
        # of several shapes itself.
        key = () if self._records_itself else (*shapes[IMAGE], *shapes[TEXT])
        execution = self._executions.pop(key, None)
        if execution is None:
            # The oldest goes first: the GPU may lack the memory for both.
            if len(self._executions) >= _SHAPES_KEPT:
                self.cuda.synchronize(self.stream)  # `encode` leaves work behind.
                self._executions.pop(next(iter(self._executions))).close()
            execution = self._new_execution()
        self._executions[key] = execution
        execution.prepare(shapes)
        return execution

    def _new_execution(self) -> "_Execution":
        context, self._first = self._first or self._new_context(), None
        for name, address in self._device.items():
            if not context.set_tensor_address(name, address):
                raise BackendError(f"the engine has no tensor {name!r}; its sidecar is wrong")
        return _Execution(context, self.cuda, self.stream, self._logger)

    def _new_context(self) -> Any:
        if self._records_itself:
            config = self._engine.create_runtime_config()
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(runtime_config=config)
        else:
            strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy)
        if context is None:
            raise BackendError(f"no execution context: {self._logged_errors('is there enough GPU memory?')}")
        if not self._records_itself:
            context.set_device_memory(self._scratch, self._scratch_size)
        return context

    def _logged_errors(self, otherwise: str) -> str:
        """Return the last errors that TensorRT logged."""
        return " ".join(self._logger.errors) or otherwise


class _Execution:
    """An execution context with the CUDA graph of its shapes, once it is recorded."""

    def __init__(self, context: Any, cuda: Cuda, stream: Any, logger: Any) -> None:
        self._context = context
        self._cuda = cuda
        self._stream = stream
        self._logger = logger
        self._shapes: Shapes = {}
        self._graphs: list[Any] = []
        self.wants_to_record = True

    def prepare(self, shapes: Shapes) -> None:
        if shapes != self._shapes:
            self._shapes = {}  # Unknown if setting them fails.
            _set_shapes(self._context, shapes)
            self._shapes = shapes

    def shape(self, output: str) -> tuple[int, ...]:
        return tuple(self._context.get_tensor_shape(output))

    def start(self) -> None:
        if self._graphs:
            self._cuda.call("cudaGraphLaunch", self._graphs[0], self._stream)
        else:
            self._enqueue()

    def record(self) -> None:
        """Record a CUDA graph. TensorRT needs a run without one first. Tried once."""
        if not self.wants_to_record:
            return
        self.wants_to_record = False
        try:
            with self._cuda.capture(self._stream, self._graphs):
                self._enqueue()
        except BackendError as error:
            _log.warning("no CUDA graph for %s, frames run without it: %s", self._shapes, error)

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._stream)):
            raise BackendError(f"TensorRT did not start: {' '.join(self._logger.errors) or 'no reason'}")

    def close(self) -> None:
        try:
            with contextlib.ExitStack() as destroyed:
                while self._graphs:
                    destroyed.callback(self._cuda.call, "cudaGraphExecDestroy", self._graphs.pop())
        finally:
            self._context = None


def _set_shapes(context: Any, shapes: Shapes) -> None:
    for name, shape in shapes.items():
        if not context.set_input_shape(name, shape):
            raise BackendError(f"the engine refuses {name} of shape {shape}; its sidecar is wrong")
    if missing := context.infer_shapes():
        raise BackendError(f"the engine needs more than shapes: {', '.join(missing)}. Compile it again.")
