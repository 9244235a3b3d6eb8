"""`pixelclip doctor`: check the installation, the backends and the models."""

import argparse
import contextlib
import ctypes
import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import FLAVORS, EngineInfo, engine_files, is_trusted
from pixelclip_sdk.backends.nvidia import advice, nvidia_gpus
from pixelclip_sdk.backends.onnx import built_in_provider, gpu_devices
from pixelclip_sdk.backends.openvino import openvino_devices
from pixelclip_sdk.backends.trt import load_tensorrt
from pixelclip_sdk.benchmark import LatencyReport, environment, measure_latency, sample_jpeg
from pixelclip_sdk.bundle import IMAGE_ENCODER, Bundle
from pixelclip_sdk.cli import common
from pixelclip_sdk.errors import BackendUnavailableError, PixelClipError
from pixelclip_sdk.models import available_models, cache_folder
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.command import printable
from pixelclip_sdk.video.sources import import_av


def add_parser(commands: common.Parsers) -> None:
    """Add the verb."""
    parser = commands.add_parser("doctor", help="check what is installed, what runs and what is missing")
    common.add_json_option(parser)
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    checks = []
    for check in diagnose():
        checks.append(check)
        if not options.json:
            print(printable(f"{check.status:<8} {check.name:<22} {check.detail}"), flush=True)
    healthy = all(check.status != "broken" for check in checks)
    if options.json:
        common.print_json({"healthy": healthy, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        print("\nReady." if healthy else "\nSomething is broken; see above.")
    return 0 if healthy else 1


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check. `detail` is the version or state that was found, or how to fix it."""

    name: str
    status: Literal["ok", "missing", "broken"]  # Missing: optional and not installed.
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
    if len(owners) > 1:
        fix = f"pip uninstall -y {' '.join(owners)} && pip install onnxruntime"
        yield Check("onnxruntime module", "broken", f"{' and '.join(owners)} overwrite each other: {fix}")
    elif owners:
        yield Check("onnxruntime module", "ok", f"owned by {owners[0]}")
    yield _try("video", "missing", "PyAV {0.__version__}", import_av)
    yield _try("backend onnx, gpu", "missing", "{}", _onnx_gpu)
    for provider in ("cuda", "tensorrt"):  # Whether its libraries load, only loading a model shows.
        yield _try(f"backend onnx-{provider}", "missing", "has {}; needs a GPU", built_in_provider, provider)
    for flavor in FLAVORS:
        yield _try(f"backend {flavor}", "missing", "version {0.__version__}", load_tensorrt, flavor)
    yield _try("backend openvino", "missing", "{}", _openvino)
    gpus = nvidia_gpus()
    for gpu in gpus:
        facts_of_gpu = f"{gpu.name}, compute capability {gpu.compute_capability}"
        yield Check(f"GPU {gpu.index}", "ok", f"{facts_of_gpu}: {advice(gpu.compute_capability)}")
    if gpus:
        yield _try("JPEG files on a GPU", "missing", "{}", _nvimgcodec)
        yield _try("video files on a GPU", "missing", "NVDEC, through PyAV {}", _nvdec)
    else:
        yield Check("GPU of NVIDIA", "missing", "the driver finds none; models run on the CPU")
    yield _try("CUDA for tensorrt", "missing", "{0.gpu.name}", Cuda)
    folder = cache_folder()
    if folder is None:
        fix = "this user has no home folder: set PIXELCLIP_HOME to a folder"
        yield Check("model folder", "missing", fix)
    else:
        yield Check("model folder", "ok", f"{folder}{'' if folder.is_dir() else ', not created yet'}")
    for name, path in available_models().items():
        yield _try(f"model {name}", "broken", "{}", _verify, path)
        for plan in engine_files(path):
            yield _try(f"engine of {name}", "broken", "{}", _check_engine, plan, path)
    smoke_test = "{0.engine}: {0.fps:.0f} frames a second at 640×480, 2 classes"
    yield _try("backend onnx, cpu", "broken", smoke_test, _smoke_test)


def _try(
    name: str, failure: Literal["missing", "broken"], detail: str, find: Callable[..., Any], *arguments: Any
) -> Check:
    """Check that `find` raises no `PixelClipError`. `detail` is a format for its result."""
    try:
        return Check(name, "ok", detail.format(find(*arguments)))
    except PixelClipError as error:
        return Check(name, failure, str(error))


def _onnx_gpu() -> str:
    devices = gpu_devices()
    return f"{len(devices)} device(s) through {devices[0].ep_name}"


def _nvimgcodec() -> str:
    """Its version. Importing it would print messages."""
    for name in ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name} {importlib.metadata.version(name)}"
    raise BackendUnavailableError('Pillow decodes them. Faster: pip install "pixelclip-sdk[nvcodec]"')


def _nvdec() -> str:
    version = str(import_av().__version__)
    try:
        ctypes.CDLL("nvcuvid.dll" if sys.platform == "win32" else "libnvcuvid.so.1")
    except OSError as error:
        raise BackendUnavailableError(
            f"the CPU decodes them, because the driver has no video decoder here: {error}. Start a container "
            "with NVIDIA_DRIVER_CAPABILITIES=compute,utility,video."
        ) from error
    return version


def _openvino() -> str:
    return "; ".join(f"{device}: {facts}" for device, facts in openvino_devices().items())


def _verify(path: Path) -> str:
    bundle = Bundle.open(path)
    bundle.verify()
    return f"{bundle.size / 1e6:.1f} MB, {bundle.precision}, every hash right"


def _check_engine(plan: Path, path: Path) -> str:
    """Check that an engine is complete and compiled from the bundle's file, not that it runs here."""
    sha256 = Bundle.open(path).files[IMAGE_ENCODER]["sha256"]
    info = EngineInfo.read(plan)
    info.check_bundle(plan, onnx_sha256=sha256, bundle=path)
    trust = "trusted" if is_trusted(info.plan_sha256) else 'not trusted, so "auto" does not load it'
    return f"{plan.name}, complete, compiled from this model's file, {trust}"


def _smoke_test() -> LatencyReport:
    with Segmenter.from_pretrained(
        "pixelclip-lite", backend="onnx", device="cpu", classes=["cat", "sofa"]
    ) as segmenter:
        return measure_latency(segmenter, sample_jpeg(), runs=5, warmup=2)
