"""ONNX Runtime: the CPU everywhere, and NVIDIA GPUs through one of three execution providers.

ONNX Runtime falls back to the CPU by itself and only logs it. This module compares the requested provider
with the one that runs, and raises if they differ.
"""

import contextlib
import ctypes
import functools
import io
import logging
import re
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend, Device, Float32Array, batches, joined
from pixelclip_sdk.backends.cores import checked_threads, default_threads
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.encoder import DeviceEncoder
from pixelclip_sdk.backends.fork import keep_in_children
from pixelclip_sdk.backends.memory import return_unused
from pixelclip_sdk.backends.onnx_encoder import GRAPH, NO_GRAPH, OnnxEncoder
from pixelclip_sdk.backends.trt import one_line
from pixelclip_sdk.errors import BackendError, BackendUnavailableError

_log = logging.getLogger(__name__)

# The operators that take most of the time; they must run on the requested device.
_HEAVY = ("Conv", "Gemm", "MatMul")

GPU_PROVIDERS = {
    "tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""Name of a GPU provider here → in ONNX Runtime. The first is a plugin; onnxruntime-gpu has the others."""


# What ONNX Runtime says if a library of a provider does not load; `error` is a bare RuntimeError.
_NO_LIBRARY = re.compile(
    "cannot open shared object file|Failed to load (shared )?library|LoadLibrary failed|Please install"
)
_LIBRARIES = {
    "cuda": 'Install them: pip install "onnxruntime-gpu[cuda,cudnn]"',
    "tensorrt": "Install TensorRT's: pip install tensorrt",
}


class OnnxBackend(Backend):
    """The image encoder of a bundle in ONNX Runtime. Arguments are those of `Backend` and `create_session`.

    `batch` is the only batch size of the graph, or None for any. Other batches are split or padded. A run
    that takes longer than `deadline_s` seconds is ended with a BackendError; None waits for ever.
    """

    def __init__(
        self,
        path: Path,
        *,
        embedding_dim: int,
        multiple: int,
        fixed_size: tuple[int, int] | None = None,
        batch: int | None = None,
        device: str = "cpu",
        threads: int | None = None,
        provider: str = "tensorrt-rtx",
        deadline_s: float | None = None,
    ) -> None:
        super().__init__(embedding_dim=embedding_dim, multiple=multiple, fixed_size=fixed_size)
        self.name = "onnx" if device == "cpu" or provider == "tensorrt-rtx" else f"onnx-{provider}"
        self._shared: OnnxBackend | None = None
        self._lock = threading.Lock()
        # None if there are no threads to divide: the caller chose their number, or a GPU runs the model.
        self._load_again: Callable[..., OnnxBackend] | None = None
        if device == "cpu" and threads is None:
            self._path, self._loaded = path.absolute(), _identity(path)
            self._load_again = functools.partial(
                OnnxBackend,
                self._path,
                embedding_dim=embedding_dim,
                multiple=multiple,
                fixed_size=fixed_size,
                batch=batch,
                deadline_s=deadline_s,
            )
        self._deadline_s = deadline_s
        self._encoder: OnnxEncoder | None = None
        if device != "cpu" and provider != "tensorrt-rtx":
            self._encoder = self._on_device(path, Device.parse(device), provider, batch)
        self._session: Any = (
            self._encoder.session
            if self._encoder
            else create_session(path, device=device, threads=threads, provider=provider)
        )
        self._batch = batch
        self._no_text = np.zeros((1, embedding_dim), np.float32)
        how = f", {threads or default_threads()} threads" if device == "cpu" else f" through {provider}"
        self._description = f"onnxruntime on {device}{how}"

    @property
    def description(self) -> str:
        """Human-readable runtime, device and thread count."""
        return self._description

    def device_encoder(self) -> DeviceEncoder | None:
        """The session of ONNX Runtime's CUDA or TensorRT provider, for images and logits on the GPU."""
        return self._encoder

    def _on_device(self, path: Path, place: Device, provider: str, batch: int | None) -> "OnnxEncoder | None":
        """Load the model on a stream of ours; None, with a warning, without the packages of the extra."""
        try:
            cuda = Cuda(place.index)
        except BackendUnavailableError as error:
            _log.warning("frames are resized and labels are made on the CPU, which takes longer: %s", error)
            return None

        def load(stream: int, graphs: bool) -> Any:
            device = str(place)
            return create_session(path, device=device, provider=provider, stream=stream, graphs=graphs)

        encoder = OnnxEncoder(cuda, load, self.embedding_dim, batch, graphs=provider == "cuda")
        weakref.finalize(self, encoder.close_finally, encoder.close)  # Also without `close`.
        return encoder

    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        return self._run("logits", images, text)

    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        return self._run("features", images, self._no_text)

    def _run(self, output: str, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        options: Any = None
        session = self._session
        self._check_open()  # Another thread may close this engine from now on; `session` stays valid.

        def run() -> list[Float32Array]:
            nonlocal options
            with ended_after(self._deadline_s, self._run_options()) as options:
                return [
                    session.run([output], {"image": part, "text": text}, options)[0]
                    for part in batches(images, self._batch)
                ]

        try:
            results = self._encoder.run(run) if self._encoder else run()
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base class.
            if options is not None and options.terminate:
                raise BackendError(
                    f"the model took longer than deadline_s={self._deadline_s:g} on images {images.shape}. "
                    "Allow more time, or a smaller input_size."
                ) from error
            raise BackendError(f"onnxruntime failed on images {images.shape}: {error}") from error
        return joined(results, images, self._batch)

    def _run_options(self) -> Any:
        """Options of a run: with a stream of ours, such a run has no graph."""
        if self._encoder is None:
            return None
        options = _onnxruntime().RunOptions()
        options.add_run_config_entry(GRAPH, NO_GRAPH)
        return options

    def shared(self, calls: int) -> Backend:
        """Return a session with fewer threads, so that each call has cores of its own.

        Two frames at once with one core each are faster than with two cores each, where the threads wait for
        one another at every layer (docs/adr/0008).
        """
        with self._lock:
            self._check_open()
            if self._load_again is None or calls < 2 or default_threads() < 2:
                return self
            if self._shared is None:
                if _identity(self._path) != self._loaded:
                    raise BackendError(f"{self._path} is not the file that was loaded. Load the model again.")
                self._shared = self._load_again(threads=max(default_threads() // calls, 1))
            return self._shared

    def close(self) -> None:
        """Release the session, and the one that `shared` loaded."""
        with self._lock:
            super().close()
            self._session = None
            if self._shared is not None:
                self._shared.close()
            if self._encoder is not None:
                self._encoder.close()


@contextlib.contextmanager
def ended_after(deadline_s: float | None, options: Any = None) -> Iterator[Any]:
    """Yield options of a session's run that end it after some seconds, then with ``terminate`` set.

    None yields `options`, which are those of a run without an end.
    """
    if deadline_s is None:
        yield options
        return
    options = options or _onnxruntime().RunOptions()
    options.log_severity_level = 4  # The end is an error of ours, and no news.
    timer = threading.Timer(deadline_s, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()


def _identity(path: Path) -> tuple[int, ...]:
    """Return values that differ if the file was replaced or changed; empty if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def create_session(
    path: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    provider: str = "tensorrt-rtx",
    stream: int | None = None,
    graphs: bool = False,
) -> Any:
    """Create an ``onnxruntime.InferenceSession`` of an ONNX file, on exactly the requested device.

    Args:
        path: The file.
        device: ``"cpu"``, ``"gpu"`` or e.g. ``"gpu:1"``.
        threads: CPU threads for one call; None for all that this process may use.
        provider: Execution provider for GPUs: one of `GPU_PROVIDERS`.
        stream: Address of the CUDA stream to work on, for the providers ``"cuda"`` and ``"tensorrt"``.
        graphs: Whether runs may be recorded as CUDA graphs.

    Raises:
        BackendUnavailableError: The device, or a package that it needs, is missing.
        BackendError: ONNX Runtime refuses the file, or the file keeps tensors in other files.
    """
    place = Device.parse(device)
    used = checked_threads(threads)
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = used
    # Threads that spin while they wait take CPU time from decoding, postprocessing and the next frame: a
    # third of two cores (docs/adr/0008).
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    # An ONNX file may refer to other files for its tensors. The manifest has no hash of those, so they are
    # not read: this folder cannot exist, because `path` is a file.
    nowhere = str(path / "no-external-tensors")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", nowhere)
    if place.kind == "gpu":  # For `_check_assignment`.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers: list[Any] | None = None
    if place.kind != "gpu":
        expected = "CPUExecutionProvider"
        providers = [expected]
    elif provider == "tensorrt-rtx":
        devices = gpu_devices()
        if place.index >= len(devices):
            raise BackendUnavailableError(
                f"device is {place}; {devices[0].ep_name} finds {len(devices)} GPU(s), counted from 0"
            )
        options.add_provider_for_devices([devices[place.index]], {})
        expected = devices[0].ep_name
    else:
        expected = built_in_provider(provider)
        # Operators that TensorRT lacks run on CUDA, and operators that CUDA lacks run on the CPU.
        names = [expected] + [GPU_PROVIDERS["cuda"]] * (provider == "tensorrt")
        given: dict[str, Any] = {"device_id": place.index}
        if stream is not None:
            given["user_compute_stream"] = str(stream)
        # Two defaults, said so that they stay. The search takes seconds at the first frame of a size.
        tuned = {
            "use_tf32": "1",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "enable_cuda_graph": str(int(graphs)),
        }
        providers = [(name, given | (tuned if name == GPU_PROVIDERS["cuda"] else {})) for name in names]
    try:
        # ONNX Runtime warns when it falls back; that is an error below.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            # With fallback, its Python code would retry on the CPU when loading or a run fails.
            session = ort.InferenceSession(path.read_bytes(), options, providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors have no common base class.
        if "External data" in str(error) or nowhere in str(error):
            raise BackendError(
                f"{path} keeps tensors in other files; expected all of them in the one file, whose hash is "
                "in the bundle's manifest. Save it with onnx.save_model(…, save_as_external_data=False)."
            ) from error
        if place.kind == "gpu" and _NO_LIBRARY.search(str(error)):
            raise BackendUnavailableError(
                f"{expected} lacks a library: {one_line(str(error))}. "
                f"{_LIBRARIES.get(provider, 'Install the libraries of CUDA')}, or use another backend."
            ) from error
        raise BackendError(f"onnxruntime {ort.__version__} cannot load {path}: {error}") from error
    running = session.get_providers()
    if running[0] != expected:
        raise BackendUnavailableError(
            f"asked for {expected}, onnxruntime runs {running}: it found no GPU, or a library of CUDA, cuDNN "
            "or TensorRT is missing. See `pixelclip doctor`, or use device='cpu'."
        )
    if place.kind == "gpu":
        _check_assignment(session, expected)
    _log.info("%s runs on %s", path.name, running[0])
    keep_in_children(session)
    return_unused()
    return session


def _check_assignment(session: Any, expected: str) -> None:
    """Raise BackendUnavailableError if convolutions or matrix products were silently left to the CPU."""
    on_cpu = Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name == "CPUExecutionProvider"
        for node in part.get_nodes()
    )
    if heavy := {kind: count for kind, count in on_cpu.items() if kind in _HEAVY}:
        found = ", ".join(f"{count} {kind}" for kind, count in heavy.items())
        raise BackendUnavailableError(
            f"asked for {expected}, which leaves {found} to the CPU. Use another backend, or device='cpu'."
        )
    if on_cpu:
        _log.info("%s leaves to the CPU: %s", expected, dict(on_cpu))


def built_in_provider(provider: str) -> str:
    """Return ONNX Runtime's name of a provider; raise BackendUnavailableError if it was built without it."""
    ort = _onnxruntime()
    name, available = GPU_PROVIDERS[provider], ort.get_available_providers()
    if name not in available:
        raise BackendUnavailableError(
            f"{name} is not in this onnxruntime, which has {', '.join(available)}. Replace onnxruntime by "
            'onnxruntime-gpu: pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"'
        )
    # Loads the CUDA libraries that pip installed. It prints missing ones; the session's error names them too.
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        ort.preload_dlls()
    _log.debug("%s", printed.getvalue())
    return name


def gpu_devices() -> list[Any]:
    """Return the GPUs that ONNX Runtime can use through NVIDIA's TensorRT-RTX plugin, at least one."""
    ort = _onnxruntime()
    try:
        import onnxruntime_ep_nv_tensorrt_rtx as plugin
    except ImportError as error:
        raise BackendUnavailableError(
            'no GPU execution provider is installed: pip install "pixelclip-sdk[gpu]", or use device="cpu".'
        ) from error
    name = plugin.get_ep_name()

    def found() -> list[Any]:
        return [device for device in ort.get_ep_devices() if device.ep_name == name]

    if not found():
        try:
            # The wheel contains the CUDA runtime but does not load it (version 0.5.0).
            for runtime in Path(plugin.__file__).parent.glob("libcudart.so*"):
                ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
            ort.register_execution_provider_library(name, plugin.get_library_path())
        except Exception as error:  # Without a driver this is a bare RuntimeError or OSError.
            raise BackendUnavailableError(
                f"{name} cannot be loaded: {error}. It needs an NVIDIA driver; use device='cpu' without one."
            ) from error
    if not found():
        raise BackendUnavailableError(
            f"{name} finds no NVIDIA GPU of compute capability 8.0 or newer; use device='cpu'."
        )
    return found()


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError("onnxruntime is not installed: pip install onnxruntime") from error
    return onnxruntime
