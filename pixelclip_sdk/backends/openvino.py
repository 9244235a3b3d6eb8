"""OpenVINO: CPUs of Intel and AMD, and Intel's GPUs and NPUs, in the precision that the backend's name says.

OpenVINO takes a precision as a hint. This module compares the hint with what was compiled, and raises if they
differ.
"""

import contextlib
import hashlib
import logging
import math
import os
import queue
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend, Device, Float32Array, batches, joined
from pixelclip_sdk.backends.cores import checked_threads, default_threads
from pixelclip_sdk.backends.fork import keep_in_children
from pixelclip_sdk.backends.memory import return_unused
from pixelclip_sdk.backends.trt import one_line
from pixelclip_sdk.errors import BackendError, BackendUnavailableError
from pixelclip_sdk.support.onnx_file import keeps_tensors_elsewhere
from pixelclip_sdk.support.packages import imported

_log = logging.getLogger(__name__)

PRECISIONS = {"openvino": "f32", "openvino-bf16": "bf16", "openvino-fp16": "f16"}
"""Name of a backend → OpenVINO's name of the precision of its floating-point arithmetic."""

# OpenVINO's name of a precision → of the device's ability to compute in it.
_ABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
_EXTRA = '"pixelclip-sdk[openvino]"'
# Layers that take most of the time, as the compiled model names them.
_HEAVY = ("Convolution", "FullyConnected", "MatMul")
_cores: dict[int, Any] = {}  # Process → its Core; after a fork also those of the parents.


class OpenVinoBackend(Backend):
    """The image encoder of a bundle in OpenVINO. Its first arguments are those of `Backend`.

    `name` is one of `PRECISIONS`, `device` ``"cpu"``, ``"gpu"``, ``"gpu:1"`` (Intel's GPUs) or ``"npu"``.
    `batch` is the only batch size of the graph, or None for any; other batches are split or padded.
    `threads` is the number of CPU threads of a call, None for all that this process may use; `streams` is the
    number of calls at the same time. A run that takes longer than `deadline_s` seconds is ended with a
    BackendError; None waits for ever.
    """

    def __init__(
        self,
        path: Path,
        *,
        embedding_dim: int,
        multiple: int,
        name: str = "openvino",
        fixed_size: tuple[int, int] | None = None,
        batch: int | None = None,
        device: str = "cpu",
        threads: int | None = None,
        streams: int = 1,
        deadline_s: float | None = None,
    ) -> None:
        super().__init__(embedding_dim=embedding_dim, multiple=multiple, fixed_size=fixed_size)
        self.name = name
        self._batch = batch
        self._deadline_s = deadline_s
        self._no_text = np.zeros((1, embedding_dim), np.float32)
        self._lock = threading.Lock()
        self._shared: OpenVinoBackend | None = None
        # There are no threads to divide if the caller chose their number, or a GPU runs the model.
        self._divides = device == "cpu" and threads is None
        self._path = path.absolute()
        content = _read(self._path)
        self._sha256 = hashlib.sha256(content).digest()
        used = checked_threads(threads)
        self._compiled: Any = _compile(content, path, name, Device.parse(device), used * streams, streams)
        keep_in_children(self._compiled)
        return_unused()
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()  # Requests that no call uses.
        how = f", {used} threads" if device == "cpu" else ""
        self._description = f"openvino on {device} in {name.partition('-')[2] or 'fp32'}{how}"

    @property
    def description(self) -> str:
        """Human-readable runtime, device, precision and thread count."""
        return self._description

    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        return self._run("logits", images, text)

    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        return self._run("features", images, self._no_text)

    def _run(self, output: str, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        with self._request() as request:
            try:
                parts = [self._infer(request, output, part, text) for part in batches(images, self._batch)]
            except RuntimeError as error:  # All of OpenVINO's errors.
                reason = one_line(str(error))
                raise BackendError(f"openvino failed on images {images.shape}: {reason}") from error
        return joined(parts, images, self._batch)

    def _infer(
        self, request: Any, output: str, images: npt.NDArray[np.uint8], text: Float32Array
    ) -> Float32Array:
        inputs = {"image": np.ascontiguousarray(images), "text": np.ascontiguousarray(text)}
        if self._deadline_s is None:
            request.infer(inputs, share_inputs=True, share_outputs=True)
        else:
            request.start_async(inputs, share_inputs=True)
            if not request.wait_for(math.ceil(self._deadline_s * 1e3)):
                request.cancel()
                with contextlib.suppress(RuntimeError):  # That it was cancelled.
                    request.wait()
                raise BackendError(
                    f"the model took longer than deadline_s={self._deadline_s:g} on images {images.shape}. "
                    "Allow more time, or a smaller input_size."
                )
        # A copy: the next call overwrites the output.
        result: Float32Array = np.array(request.get_tensor(output).data)
        return result

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        """Yield a request that no other call uses; calls at the same time have one each."""
        compiled = self._compiled
        self._check_open()  # Another thread may close this engine from now on; `compiled` stays valid.
        try:
            request = self._idle.get_nowait()
        except queue.Empty:
            request = compiled.create_infer_request()
            keep_in_children(request)
        try:
            yield request
        finally:
            self._idle.put(request)

    def shared(self, calls: int) -> Backend:
        """Return an engine in which each call has cores of its own; see `OnnxBackend.shared`."""
        with self._lock:
            self._check_open()
            if not self._divides or calls < 2 or default_threads() < 2:
                return self
            if self._shared is None:
                if hashlib.sha256(self._path.read_bytes()).digest() != self._sha256:
                    raise BackendError(f"{self._path} is not the file that was loaded. Load the model again.")
                self._shared = OpenVinoBackend(
                    self._path,
                    embedding_dim=self.embedding_dim,
                    multiple=self.multiple,
                    name=self.name,
                    fixed_size=self.fixed_size,
                    batch=self._batch,
                    threads=max(default_threads() // calls, 1),
                    streams=calls,
                    deadline_s=self._deadline_s,
                )
            return self._shared

    def close(self) -> None:
        """Release the engine, and the one that `shared` loaded."""
        with self._lock:
            super().close()
            self._compiled = None
            self._idle = queue.SimpleQueue()
            if self._shared is not None:
                self._shared.close()


def openvino_devices() -> dict[str, str]:
    """Return OpenVINO's devices, ``{"CPU": "Intel(R) Core(TM) … in bf16, fp32"}``.

    Raises BackendUnavailableError if OpenVINO is not installed.
    """
    core = openvino_core()
    found = {}
    for device in core.available_devices:
        able = set(core.get_property(device, "OPTIMIZATION_CAPABILITIES")) & {*_ABILITIES.values()}
        precisions = ", ".join(sorted(ability.lower() for ability in able))
        found[device] = f"{core.get_property(device, 'FULL_DEVICE_NAME')} in {precisions}"
    return found


def load_openvino(module: str = "openvino") -> Any:
    """Import a module of OpenVINO without its telemetry; raise BackendUnavailableError if it is missing.

    The import of OpenVINO 2026.4 starts `openvino_telemetry`, which writes an identifier of the user into
    the home folder. Without that package, OpenVINO takes a stub of its own.
    """
    if "openvino" in sys.modules or "openvino_telemetry" in sys.modules:
        return imported(module, _EXTRA)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return imported(module, _EXTRA)
    finally:
        del sys.modules["openvino_telemetry"]


def openvino_core() -> Any:
    """Return OpenVINO's Core of this process, which is never freed.

    The CPU plugin of a Core (OpenVINO 2026.4) gives the thread that loads it a stack for signals, and unmaps
    it with the Core. In another thread, or if Cores go in another order than they came, the thread keeps its
    address: the next signal that Python handles, such as Ctrl-C, ends the process with a segmentation fault.
    """
    openvino, process = load_openvino(), os.getpid()
    if process not in _cores:
        _cores.setdefault(process, openvino.Core())  # One that is not used has no plugin.
    return _cores[process]


def _read(path: Path) -> bytes:
    """Read an ONNX file; raise BackendError if it keeps tensors in other files."""
    content = path.read_bytes()
    try:
        elsewhere = keeps_tensors_elsewhere(content)
    except ValueError as error:
        raise BackendError(f"openvino cannot load {path}: {error}. Expected an ONNX file") from error
    if elsewhere:
        raise BackendError(
            f"{path} keeps tensors in other files; expected all of them in the one file, whose hash is "
            "in the bundle's manifest. Save it with onnx.save_model(…, save_as_external_data=False)."
        )
    return content


def _compile(content: bytes, path: Path, name: str, place: Device, threads: int, streams: int) -> Any:
    """Compile an ONNX file for exactly this device and precision."""
    openvino = load_openvino()
    core, precision = openvino_core(), PRECISIONS[name]
    device = f"GPU.{place.index}" if place.kind == "gpu" else place.kind.upper()
    found = core.available_devices
    if place.kind == "gpu" and "GPU" in found and not place.index:  # The name of a single one.
        device = "GPU"
    if device not in found:
        raise BackendUnavailableError(
            f"device is {place}; openvino finds {', '.join(found)}. An Intel GPU or NPU needs its driver."
        )
    able = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if _ABILITIES[precision] not in able:
        raise BackendUnavailableError(
            f"backend is {name!r}; openvino's {device} computes in {', '.join(sorted(able))} here. "
            f"Use one of {', '.join(PRECISIONS)} that it has, or backend='onnx'."
        )
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if device == "CPU":
        # Threads tied to cores get into the way of decoding, of the next frame, and of other programs.
        config |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
    try:
        model = core.read_model(content)
        _expand_weights(model)
        compiled = core.compile_model(model, device, config)
        _check_precision(compiled, name)
    except RuntimeError as error:  # All of OpenVINO's errors.
        reason = one_line(str(error))
        raise BackendError(f"openvino {openvino.__version__} cannot load {path}: {reason}") from error
    _log.info("%s runs in openvino on %s", path.name, compiled.get_property("EXECUTION_DEVICES"))
    return compiled


def _expand_weights(model: Any) -> None:
    """Compute constant parts of the graph, in place, so that weights that are stored small become fp32.

    OpenVINO 2026.4 ends the process in bf16 on weights that are stored in int8, and may round the inputs of
    products with them. In a graph that is quantised, they are meant to be int8.
    """
    if any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        return
    passes = load_openvino("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(model)


def _check_precision(compiled: Any, name: str) -> None:
    """Raise BackendUnavailableError if the model computes in another precision than the name promises."""
    precision = PRECISIONS[name]
    taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    heavy: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        facts = node.get_rt_info()
        if "layerType" in facts and facts["layerType"].astype(str) in _HEAVY:
            heavy[facts["runtimePrecision"].astype(str)] += 1
    wrong = [kind for kind in heavy if kind.startswith(("f", "bf")) and kind != precision]
    if taken != precision or (wrong and precision not in heavy):
        raise BackendUnavailableError(
            f"backend is {name!r}, but openvino computes in {', '.join(heavy) or taken} here. "
            "Use backend='openvino', or backend='onnx'."
        )
    _log.info("convolutions and products by precision: %s", dict(heavy))
