"""What is installed, what would run, what is missing and how to get it."""

import dataclasses
import importlib.metadata
from collections.abc import Iterator

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import FLAVORS, EngineInfo, engine_files
from pixelclip_sdk.backends.onnx import built_in_provider, gpu_devices
from pixelclip_sdk.backends.trt import load_tensorrt
from pixelclip_sdk.benchmark import environment, measure_latency, sample_jpeg
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.models import available_models, find_bundle
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.video.sources import import_av

__all__ = ["Check", "diagnose"]


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: What was looked at.
        status: ``"ok"``, ``"missing"`` (optional, not there) or ``"broken"``.
        detail: What was found, or what to do.
    """

    name: str
    status: str
    detail: str


def diagnose() -> Iterator[Check]:
    """Look at everything, cheap things first. Raises nothing: trouble is a finding."""
    facts = environment()
    yield Check("machine", "ok", f"{facts['system']}, {facts['cpu']}, {facts['cores']} cores usable")
    yield Check("python", "ok", facts["python"])
    owners = sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", [])))
    for package, version in facts["packages"].items():
        # onnxruntime-gpu may stand in for onnxruntime.
        stands_in = owners[0] if package == "onnxruntime" and owners else ""
        if version == "not installed" and stands_in:
            version = f"{importlib.metadata.version(stands_in)}, as {stands_in}"
        found = version != "not installed"
        fix = f"not installed: pip install {package}"
        yield Check(package, "ok" if found else "broken", version if found else fix)
    yield _runtime_owner(owners)
    yield _video()
    yield _gpu()
    yield from map(_provider, ("cuda", "tensorrt"))
    yield from map(_tensorrt, FLAVORS)
    yield _cuda()
    for name in available_models():
        yield _model(name)
        yield from _engines(name)
    yield _smoke_test()


def _runtime_owner(owners: list[str]) -> Check:
    """Two distributions that own the module `onnxruntime` overwrite each other's files."""
    if len(owners) > 1:
        fix = f"pip uninstall -y {' '.join(owners)} && pip install onnxruntime"
        return Check("onnxruntime module", "broken", f"{' and '.join(owners)} overwrite each other: {fix}")
    if not owners:
        return Check("onnxruntime module", "broken", "not installed: pip install onnxruntime")
    return Check("onnxruntime module", "ok", f"owned by {owners[0]}")


def _video() -> Check:
    try:
        return Check("video", "ok", f"PyAV {import_av().__version__}")
    except PixelClipError as error:
        return Check("video", "missing", str(error))


def _gpu() -> Check:
    try:
        devices = gpu_devices()
    except PixelClipError as error:
        return Check("backend onnx, gpu", "missing", str(error))
    return Check("backend onnx, gpu", "ok", f"{len(devices)} device(s) through {devices[0].ep_name}")


def _provider(provider: str) -> Check:
    """Whether it is part of this ONNX Runtime; only a model that loads shows that it finds its libraries."""
    try:
        return Check(f"backend onnx-{provider}", "ok", f"has {built_in_provider(provider)}; needs a GPU")
    except PixelClipError as error:
        return Check(f"backend onnx-{provider}", "missing", str(error))


def _tensorrt(flavor: str) -> Check:
    try:
        return Check(f"backend {flavor}", "ok", f"version {load_tensorrt(flavor).__version__}")
    except PixelClipError as error:
        return Check(f"backend {flavor}", "missing", str(error))


def _cuda() -> Check:
    try:
        gpu = Cuda().gpu
    except PixelClipError as error:
        return Check("GPU for tensorrt", "missing", str(error))
    return Check("GPU for tensorrt", "ok", f"{gpu.name}, compute capability {gpu.compute_capability}")


def _engines(model: str) -> Iterator[Check]:
    """The engines of a model: whole, and compiled from the model as it is? Not whether they run here."""
    try:
        bundle = find_bundle(model)
    except PixelClipError:
        return  # _model says what is wrong.
    for plan in engine_files(bundle.path):
        name = f"engine of {model}"
        try:
            info = EngineInfo.read(plan)
            info.check_bundle(plan, onnx_sha256=bundle.files[IMAGE_ENCODER]["sha256"], bundle=bundle.path)
        except PixelClipError as error:
            yield Check(name, "broken", str(error))
        else:
            yield Check(name, "ok", f"{plan.name}, whole, compiled from this model's file")


def _model(name: str) -> Check:
    try:
        bundle = find_bundle(name)
        bundle.verify()
    except PixelClipError as error:
        return Check(f"model {name}", "broken", str(error))
    return Check(f"model {name}", "ok", f"{bundle.size / 1e6:.1f} MB, {bundle.precision}, every hash right")


def _smoke_test() -> Check:
    try:
        with Segmenter.from_pretrained(
            "pixelclip-lite", backend="onnx", device="cpu", classes=["cat", "sofa"]
        ) as segmenter:
            report = measure_latency(segmenter, sample_jpeg(), runs=5, warmup=2)
    except PixelClipError as error:
        return Check("backend onnx, cpu", "broken", str(error))
    return Check(
        "backend onnx, cpu", "ok", f"{report.backend}: {report.fps:.0f} frames a second at 640×480, 2 classes"
    )
