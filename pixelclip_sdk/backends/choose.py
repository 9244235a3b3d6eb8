"""The backend that a person asked for, or the best there is.

A name is a promise: if what it names is not there, that is an error. Only ``"auto"`` may choose, and it says
what it chose and why.
"""

import dataclasses
import logging
import os
from pathlib import Path

from pixelclip_sdk.backends.base import Backend, Device
from pixelclip_sdk.backends.engine import engine_files
from pixelclip_sdk.bundle import IMAGE_ENCODER, Bundle, InputSpec
from pixelclip_sdk.errors import BackendError, BackendUnavailableError, BundleError
from pixelclip_sdk.support.files import is_file

__all__ = ["BACKENDS", "open_backend", "spec_of"]

_log = logging.getLogger(__name__)

BACKENDS = ("auto", "onnx", "onnx-cuda", "onnx-tensorrt", "tensorrt")
"""Names of backends. Besides them, the path of a `.plan` is one."""


def open_backend(
    bundle: Bundle,
    backend: str | os.PathLike[str] = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> Backend:
    """Load a bundle's image encoder.

    ====================  ======================================================================
    ``onnx``              ONNX Runtime: the CPU, or with a GPU its TensorRT-RTX plugin
    ``onnx-cuda``         ONNX Runtime's CUDA provider, from `onnxruntime-gpu`
    ``onnx-tensorrt``     ONNX Runtime's TensorRT provider, from `onnxruntime-gpu`
    ``tensorrt``          an engine in the bundle's folder, of either flavour of TensorRT
    ``DIR/NAME.plan``     this engine
    ``auto``              ``tensorrt`` if the bundle has an engine that runs here, else ``onnx``
    ====================  ======================================================================

    Args:
        bundle: The model.
        backend: One of these.
        device: ``"cpu"``, ``"gpu"``, ``"gpu:1"``, or ``"auto"``: the CPU for ``onnx``, else the first GPU.
        threads: CPU threads for one picture; None for all that this process may use.

    Raises:
        BackendUnavailableError: The backend, a package it needs or the device is not there.
        BackendError: The model or engine does not load.
        BundleError: The model's files are damaged.
    """
    place = Device.parse(device)
    name = os.fspath(backend)
    is_plan = name.endswith(".plan")
    if name not in BACKENDS and not is_plan:
        raise BackendUnavailableError(
            f"backend is {name!r}; expected one of {', '.join(BACKENDS)} or the path of a .plan"
        )
    if place.kind == "cpu" and (is_plan or name not in ("auto", "onnx")):
        raise BackendUnavailableError(
            f'backend {name!r} runs on GPUs only; device is "cpu". Use backend="onnx" on a CPU.'
        )
    if is_plan:
        return _engine(bundle, Path(name), place)
    if name == "tensorrt":
        return _first_engine(bundle, place)
    if name == "auto" and place.kind != "cpu" and engine_files(bundle.path):
        try:
            return _first_engine(bundle, place)
        except BackendError as error:
            _log.warning("%s: has engines, but none runs here, so ONNX Runtime does: %s", bundle.name, error)
    return _onnx(bundle, name, place, threads)


def spec_of(engine: Backend, spec: InputSpec, *, resized: bool) -> InputSpec:
    """The sizes that a loaded engine takes: it may be compiled for one, of a model whose size is free.

    Args:
        engine: The engine.
        spec: The sizes that the model takes, or as somebody wants them.
        resized: Whether somebody asked for this size.

    Raises:
        BundleError: The engine does not take the size that was asked for.
    """
    if spec.fixed or engine.fixed_size is None:
        return spec
    height, width = engine.fixed_size
    if resized and (height, width) != (spec.height, spec.width):
        raise BundleError(
            f"input size is {spec.height}×{spec.width}; {engine.description} is for {height}×{width} "
            'only. Leave it out, compile another engine, or use backend="onnx".'
        )
    return dataclasses.replace(spec, height=height, width=width, fixed=True)


def _onnx(bundle: Bundle, name: str, place: Device, threads: int | None) -> Backend:
    # Imported here so that `import pixelclip_sdk` stays light; the same below.
    from pixelclip_sdk.backends.onnx import OnnxBackend

    provider = {"onnx-cuda": "cuda", "onnx-tensorrt": "tensorrt"}.get(name, "tensorrt-rtx")
    if place.kind == "auto":
        place = Device("gpu" if name.startswith("onnx-") else "cpu")
    spec = bundle.input
    return OnnxBackend(
        bundle.file(IMAGE_ENCODER),
        embedding_dim=bundle.embedding_dim,
        multiple=spec.multiple,
        fixed_size=spec.only_size,
        batch=spec.batch,
        device=str(place) if place.index else place.kind,
        threads=threads,
        provider=provider,
    )


def _engine(bundle: Bundle, plan: Path, place: Device) -> Backend:
    from pixelclip_sdk.backends.tensorrt import TensorRTBackend

    if not is_file(plan):
        raise BackendUnavailableError(f"{plan} does not exist; expected an engine from export/to_trt.py")
    return TensorRTBackend(plan, bundle=bundle, gpu=place.index)


def _first_engine(bundle: Bundle, place: Device) -> Backend:
    """The bundle's newest engine that runs here.

    Raises:
        BackendUnavailableError: There is none; the message says why each does not.
    """
    plans = engine_files(bundle.path)
    if not plans:
        raise BackendUnavailableError(
            f"{bundle.path} has no engines. Compile one: python export/to_trt.py --bundle {bundle.path}"
        )
    reasons: list[BackendError] = []
    for plan in plans:
        try:
            return _engine(bundle, plan, place)
        except BackendError as error:
            reasons.append(error)
    kind = BackendUnavailableError if isinstance(reasons[0], BackendUnavailableError) else BackendError
    raise kind("; ".join(str(reason) for reason in reasons)) from reasons[0]
