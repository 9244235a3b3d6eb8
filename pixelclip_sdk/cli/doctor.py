"""`pixelclip doctor`: check the installation, the backends and the models."""

import argparse
import dataclasses
import importlib.metadata
from collections.abc import Iterator

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import FLAVORS, EngineInfo, engine_files
from pixelclip_sdk.backends.onnx import built_in_provider, gpu_devices
from pixelclip_sdk.backends.trt import load_tensorrt
from pixelclip_sdk.benchmark import environment, measure_latency, sample_jpeg
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.cli.common import Parsers, add_json_option, print_json
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.models import available_models, cache_folder, find_bundle
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.command import printable
from pixelclip_sdk.video.sources import import_av

__all__ = ["Check", "add_parser", "diagnose"]


def add_parser(commands: Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("doctor", help="check what is installed, what runs and what is missing")
    add_json_option(parser)
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    checks = []
    for check in diagnose():
        checks.append(check)
        if not options.json:
            print(printable(f"{check.status:<8} {check.name:<22} {check.detail}"), flush=True)
    healthy = all(check.status != "broken" for check in checks)
    if options.json:
        print_json({"healthy": healthy, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        print("\nReady." if healthy else "\nSomething is broken; see above.")
    return 0 if healthy else 1


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: The subject of the check.
        status: ``"ok"``, ``"missing"`` (optional and not installed) or ``"broken"``.
        detail: The version or state that was found, or how to fix it.
    """

    name: str
    status: str
    detail: str


def diagnose() -> Iterator[Check]:
    """Yield all checks, the fast ones first. A problem becomes a check with status ``"broken"``."""
    facts = environment()
    yield Check("machine", "ok", f"{facts['system']}, {facts['cpu']}, {facts['cores']} cores usable")
    yield Check("python", "ok", facts["python"])
    owners = sorted(set(importlib.metadata.packages_distributions().get("onnxruntime", [])))
    for package, version in facts["packages"].items():
        if package == "onnxruntime" and version == "not installed" and owners:  # As onnxruntime-gpu.
            version = f"{importlib.metadata.version(owners[0])}, as {owners[0]}"
        found = version != "not installed"
        fix = f"not installed: pip install {package}"
        yield Check(package, "ok" if found else "broken", version if found else fix)
    yield _runtime_owner(owners)
    yield _video()
    yield _gpu()
    yield from map(_provider, ("cuda", "tensorrt"))
    yield from map(_tensorrt, FLAVORS)
    yield _cuda()
    yield _model_folder()
    for name in available_models():
        yield _model(name)
        yield from _engines(name)
    yield _smoke_test()


def _runtime_owner(owners: list[str]) -> Check:
    """Check that one distribution owns the module `onnxruntime`: two overwrite each other's files."""
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
    """Check that this ONNX Runtime has a provider. Whether its libraries load, only loading a model shows."""
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


def _model_folder() -> Check:
    folder = cache_folder()
    if folder is None:
        return Check(
            "model folder", "missing", "this user has no home folder: set PIXELCLIP_HOME to a folder"
        )
    return Check("model folder", "ok", f"{folder}{'' if folder.is_dir() else ', not created yet'}")


def _engines(model: str) -> Iterator[Check]:
    """Check that a model's engines are complete and compiled from its file, not that they run here."""
    try:
        bundle = find_bundle(model)
    except PixelClipError:
        return  # `_model` reports it.
    for plan in engine_files(bundle.path):
        name = f"engine of {model}"
        try:
            info = EngineInfo.read(plan)
            info.check_bundle(plan, onnx_sha256=bundle.files[IMAGE_ENCODER]["sha256"], bundle=bundle.path)
        except PixelClipError as error:
            yield Check(name, "broken", str(error))
        else:
            yield Check(name, "ok", f"{plan.name}, complete, compiled from this model's file")


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
        "backend onnx, cpu", "ok", f"{report.engine}: {report.fps:.0f} frames a second at 640×480, 2 classes"
    )
