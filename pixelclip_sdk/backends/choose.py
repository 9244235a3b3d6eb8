"""Open the requested backend, or the best one with ``"auto"``.

A backend that is named but cannot run is an error. Only ``"auto"`` may choose, and it logs its choice.
"""

import dataclasses
import importlib.util
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pixelclip_sdk.backends.base import Backend, Device
from pixelclip_sdk.backends.engine import RTX_CAPABILITIES, EngineInfo, engine_files, is_trusted, runs_on
from pixelclip_sdk.backends.fastest import fastest_on_cpu
from pixelclip_sdk.backends.nvidia import nvidia_gpus
from pixelclip_sdk.backends.onnx import OnnxBackend, built_in_provider, gpu_devices
from pixelclip_sdk.backends.openvino import PRECISIONS, OpenVinoBackend
from pixelclip_sdk.bundle import IMAGE_ENCODER, Bundle, InputSpec
from pixelclip_sdk.errors import BackendError, BackendUnavailableError, BundleError
from pixelclip_sdk.support.files import is_file, user_path

_log = logging.getLogger(__name__)

_DAY_S = 86_400

Check = Callable[[Backend, Bundle], None]

BACKENDS = ("auto", "onnx", "onnx-cuda", "onnx-tensorrt", *PRECISIONS, "tensorrt")
"""Names of backends. The path of a `.plan` file is accepted too."""


def open_backend(
    bundle: Bundle,
    backend: str | os.PathLike[str] = "auto",
    device: str = "auto",
    threads: int | None = None,
    deadline_s: float | None = None,
    check: Check | None = None,
) -> Backend:
    """Load a bundle's image encoder.

    ====================  ======================================================================
    ``onnx``              ONNX Runtime: the CPU, or with a GPU its TensorRT-RTX plugin
    ``onnx-cuda``         ONNX Runtime's CUDA provider, from `onnxruntime-gpu`
    ``onnx-tensorrt``     ONNX Runtime's TensorRT provider, from `onnxruntime-gpu`
    ``openvino``          OpenVINO in fp32: the CPU, or with a device Intel's GPU or NPU
    ``openvino-bf16``     OpenVINO in bfloat16, where the processor has it
    ``openvino-fp16``     OpenVINO in float16, where the device has it
    ``tensorrt``          the newest engine in the bundle's folder that runs here
    ``DIR/NAME.plan``     this engine
    ``auto``              on an NVIDIA GPU: ``tensorrt`` with an engine that was compiled on this
                          machine, ``onnx-cuda``, or ``onnx`` with the plugin, if that is installed
                          and runs; else on the CPU the faster of ``onnx`` and OpenVINO's
    ====================  ======================================================================

    An engine contains machine code. ``auto`` loads only engines that ``export/to_trt.py`` compiled on this
    machine for this user; the other names load any engine, because the caller asked for it.

    `check` is called with a TensorRT engine that was loaded; if it raises BackendError, that engine does not
    count as one that runs. The other arguments and the errors are those of
    `pixelclip_sdk.Segmenter.from_pretrained`.
    """
    place = Device.parse(device)
    if deadline_s is not None and not (isinstance(deadline_s, int | float) and 0 < deadline_s <= _DAY_S):
        raise BackendError(f"deadline_s is {deadline_s!r}; expected seconds, more than 0, or None")
    name = os.fspath(backend) if isinstance(backend, str | os.PathLike) else ""
    is_plan = name.endswith(".plan")
    if name not in BACKENDS and not is_plan:
        raise BackendUnavailableError(
            f"backend is {backend!r}; expected one of {', '.join(BACKENDS)} or the path of a .plan"
        )
    on_openvino = name in PRECISIONS
    if place.kind == "npu" and not on_openvino:
        raise BackendUnavailableError(
            f'device "npu" needs a backend of OpenVINO, {", ".join(PRECISIONS)}; backend is {name!r}'
        )
    if on_openvino and device.startswith("cuda"):
        raise BackendUnavailableError(
            f'openvino runs on no NVIDIA GPU; device is {device!r}. Use "gpu" for one of Intel, or '
            'backend="onnx-cuda".'
        )
    if place.kind == "cpu" and (is_plan or not (on_openvino or name in ("auto", "onnx"))):
        raise BackendUnavailableError(
            f'backend {name!r} runs on GPUs only; device is "cpu". Use backend="onnx" on a CPU.'
        )
    if deadline_s is not None:
        if is_plan or name == "tensorrt":
            raise BackendUnavailableError(
                "a TensorRT engine cannot be ended; deadline_s needs an ONNX or OpenVINO backend"
            )
        name = "onnx" if name == "auto" else name
    if is_plan:
        return _first_engine(bundle, [user_path(name)], place, check)
    if name == "tensorrt":
        return _first_engine(bundle, engine_files(bundle.path), place, check)
    if name == "auto" and place.kind != "cpu":
        chosen = _on_nvidia(bundle, place, threads, check)
        if chosen is not None:
            return chosen
    if name == "auto":
        name, reason = fastest_on_cpu(bundle, threads)
        _log.info("%s: %s on the CPU: %s", bundle.name, name, reason)
        if name != "onnx":
            try:
                return _named(bundle, name, Device("cpu"), threads)
            except BackendError as error:
                _log.warning("%s: %s does not run, using onnx: %s", bundle.name, name, error)
                name = "onnx"
    if place.kind == "auto":
        place = Device("gpu" if name.startswith("onnx-") else "cpu")
    return _named(bundle, name, place, threads, deadline_s)


def _named(
    bundle: Bundle, name: str, place: Device, threads: int | None, deadline_s: float | None = None
) -> Backend:
    """Load one of ONNX Runtime's or OpenVINO's backends."""
    where = str(place) if place.index else place.kind
    common: dict[str, Any] = {
        "embedding_dim": bundle.embedding_dim,
        "multiple": bundle.input.multiple,
        "fixed_size": bundle.input.only_size,
        "batch": bundle.input.batch,
        "device": where,
        "threads": threads,
        "deadline_s": deadline_s,
    }
    if name in PRECISIONS:
        return OpenVinoBackend(bundle.file(IMAGE_ENCODER), name=name, **common)
    provider = name.removeprefix("onnx-") if name.startswith("onnx-") else "tensorrt-rtx"
    return OnnxBackend(bundle.file(IMAGE_ENCODER), provider=provider, **common)


def resolve_input_spec(engine: Backend, spec: InputSpec, *, resized: bool) -> InputSpec:
    """Return the input sizes of a loaded engine, which may be compiled for one size of a model that has many.

    Raises BundleError if the caller chose the nominal size of `spec` (`resized`) and the engine has another.
    """
    if spec.fixed or engine.fixed_size is None:
        return spec
    height, width = engine.fixed_size
    if resized and (height, width) != (spec.height, spec.width):
        raise BundleError(
            f"input size is {spec.height}×{spec.width}; {engine.description} is for {height}×{width} "
            'only. Omit input_size, compile another engine, or use backend="onnx".'
        )
    return dataclasses.replace(spec, height=height, width=width, fixed=True)


def _on_nvidia(bundle: Bundle, place: Device, threads: int | None, check: Check | None) -> Backend | None:
    """Load the best backend that runs on an NVIDIA GPU here; None if there is none and `place` is any device.

    What was chosen is logged, and what was tried in vain. For a GPU that was asked for, that is an error.
    """
    reasons: list[str] = []

    def tried(name: str, load: Callable[..., Backend], *arguments: Any) -> Backend | None:
        try:
            engine = load(*arguments)
        except BackendError as error:
            reasons.append(f"{name}: {error}")
            return None
        _log.info("%s: %s, because this GPU can be used", bundle.name, engine.description)
        return engine

    trusted = [plan for plan in engine_files(bundle.path) if _may_load(plan)]
    if trusted and (engine := tried("tensorrt", _first_engine, bundle, trusted, place, check)):
        return engine
    gpu = Device("gpu", place.index)
    names = [name for name, there in (("onnx-cuda", _has_cuda), ("onnx", _has_plugin)) if there()]
    gpus = nvidia_gpus() if names else []
    if place.index < len(gpus):
        capability = gpus[place.index].compute_capability
        for name in names:
            if name == "onnx" and not runs_on(RTX_CAPABILITIES, capability):
                reasons.append(f"TensorRT-RTX runs on {RTX_CAPABILITIES}, not on {capability}")
            elif engine := tried(name, _named, bundle, name, gpu, threads):
                return engine
    if place.kind == "gpu":
        if not names and not reasons:
            gpu_devices()  # Says what to install.
        raise BackendUnavailableError(
            f"no backend runs on {place}: {'; '.join(reasons) or 'there is no such GPU'}. "
            "See `pixelclip doctor`, or use device='cpu'."
        )
    if reasons:
        _log.warning("%s: no engine runs here on a GPU, using the CPU: %s", bundle.name, "; ".join(reasons))
    return None


def _has_cuda() -> bool:
    try:
        return bool(built_in_provider("cuda"))
    except BackendUnavailableError:
        return False


def _has_plugin() -> bool:
    return importlib.util.find_spec("onnxruntime_ep_nv_tensorrt_rtx") is not None


def _may_load(plan: Path) -> bool:
    """Return whether an engine was compiled on this machine; log it if not."""
    try:
        if is_trusted(EngineInfo.read(plan).plan_sha256):
            return True
    except BackendError:
        return True  # Loading it fails and logs the reason.
    _log.warning(
        "%s was not compiled on this machine, and engines contain code, so it is not loaded. "
        'If you trust it, use backend="tensorrt".',
        plan,
    )
    return False


def _first_engine(bundle: Bundle, plans: list[Path], place: Device, check: Check | None) -> Backend:
    """Load the first of these engines that runs here; if none does, raise an error with all reasons."""
    from pixelclip_sdk.backends.tensorrt import TensorRTBackend

    if not plans:
        raise BackendUnavailableError(
            f"{bundle.path} has no engines. Compile one: python export/to_trt.py --bundle {bundle.path}"
        )
    reasons: list[BackendError] = []
    for plan in plans:
        try:
            if not is_file(plan):
                raise BackendUnavailableError(f"{plan} does not exist; run export/to_trt.py")
            engine = TensorRTBackend(plan, bundle=bundle, gpu=place.index)
            try:
                if check is not None:
                    check(engine, bundle)
            except BaseException:
                engine.close()
                raise
            return engine
        except BackendError as error:
            reasons.append(error)
    kind = BackendUnavailableError if isinstance(reasons[0], BackendUnavailableError) else BackendError
    raise kind("; ".join(str(reason) for reason in reasons)) from reasons[0]
