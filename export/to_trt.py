"""Compile a bundle for TensorRT: ``python export/to_trt.py --bundle BUNDLE``.

Writes a plan and its sidecar (docs/gpu.md). The precision is that of the ONNX file.
"""

import argparse
import dataclasses
import hashlib
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from export import trt as networks
from export.options import default_photos
from pixelclip_sdk import BackendError, BackendUnavailableError, Bundle, Vocabulary
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import ENGINES, FLAVORS, EngineInfo, runs_on, system, trust
from pixelclip_sdk.backends.limits import Limits
from pixelclip_sdk.backends.tensorrt import TensorRTBackend
from pixelclip_sdk.backends.trt import load_tensorrt, make_logger
from pixelclip_sdk.bundle import IMAGE_ENCODER, InputSpec, misfit
from pixelclip_sdk.engine_check import compare, not_run
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.preprocess import input_size
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.signals import stop_signal

__all__ = ["DEFAULT_BATCH", "DEFAULT_CLASSES", "Options", "compile_engine", "main", "pick_flavor"]

# The optimum is one camera frame; predict_batch may send a few at once.
DEFAULT_BATCH = (1, 1, 4)
# K is a dimension of one small matrix product, so a wide range costs no time. It costs memory: the logits of
# 512 classes and 4 images take 34 MB on the GPU and as much on the host.
DEFAULT_CLASSES = (1, 32, 512)
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
_MAX_WORKSPACE_MB = 1 << 23  # 8 TiB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a build. Three numbers are a minimum, an optimum and a maximum."""

    batch: tuple[int, int, int] | None = None  # None: the bundle's batch size, or `DEFAULT_BATCH`.
    # Number of texts K. None: `DEFAULT_CLASSES`, or more for a larger vocabulary in the bundle.
    classes: tuple[int, int, int] | None = None
    # Fixed input size (H, W). None: the bundle's, or all sizes if it follows the image.
    input_size: tuple[int, int] | None = None
    precision: str | None = None  # Required precision of the network; None accepts any.
    workspace_mb: int | None = None  # Maximum scratch memory of a layer, in MiB; None: TensorRT's own limit.
    timing_cache: Path | None = None  # Kernel timings to read and extend (TensorRT; RTX measures none).

    def __post_init__(self) -> None:
        for name, values in (("batch", self.batch), ("classes", self.classes)):
            if values is not None and not 1 <= values[0] <= values[1] <= values[2] < 2**31:
                raise BackendError(f"--{name} is {values}; expected 1 ≤ min ≤ opt ≤ max < 2³¹")
        if self.workspace_mb is not None and not 1 <= self.workspace_mb <= _MAX_WORKSPACE_MB:
            raise BackendError(f"--workspace is {self.workspace_mb}; expected 1 to {_MAX_WORKSPACE_MB} (MiB)")


def compile_engine(bundle: Bundle, flavor: str, out: Path, options: Options) -> Path:
    """Compile a bundle's image encoder; returns the path of the plan in the folder `out`.

    The flavor ``"tensorrt"`` needs the GPU that will run the engine; ``"tensorrt-rtx"`` needs no GPU.
    """
    source = bundle.file(IMAGE_ENCODER)
    batch = options.batch or ((bundle.input.batch,) * 3 if bundle.input.batch else DEFAULT_BATCH)
    options = dataclasses.replace(options, batch=batch, classes=options.classes or _default_classes(bundle))
    sizes = _sizes(bundle.input, options.input_size)
    trt = load_tensorrt(flavor)
    gpu, capability = "", networks.rtx_capabilities(trt)
    if flavor == "tensorrt":
        device = Cuda().gpu
        gpu, capability = device.name, device.compute_capability
    model = onnx.load(source)
    stored_small = networks.fold_storage(model)
    networks.make_symmetric(model)
    content = model.SerializeToString()
    del model  # Frees memory before the build.
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    # TensorRT 11 and RTX have no other mode; TensorRT 10 would otherwise choose precisions itself.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    networks.parse(trt, network, logger, content, source)
    layers = networks.precisions(network)
    precision = next(iter(layers))
    stored_as = bundle.precision.removesuffix("-weights")
    _check_precision(layers, options.precision, bundle, stored_as if stored_small else None)
    shapes = networks.profiles(network, batch=batch, classes=options.classes, sizes=sizes)
    plan, settings = _build(trt, builder, network, logger, shapes, options)
    asked = {name: value for name, value in vars(options).items() if name != "timing_cache"}
    info = EngineInfo(
        model=bundle.name,
        flavor=flavor,
        tensorrt_version=trt.__version__,
        compute_capability=capability,
        gpu=gpu,
        system=system(),
        precision=precision,
        layers=layers,
        stored_as=stored_as,
        tensors=networks.tensor_infos(network, shapes),
        onnx_sha256=bundle.files[IMAGE_ENCODER]["sha256"],
        plan_size=plan.nbytes,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        options={**asked, **settings},
    )
    Limits.of(info, bundle.embedding_dim)  # Fails if the SDK could not load the engine.
    info = dataclasses.replace(info, verification=_verify(bundle, plan, info))
    target = out / f"{_name(info)}.plan"
    # Neither file is replaced before both are complete.
    with atomic_write(target.with_suffix(".json")) as sidecar, atomic_write(target) as temporary:
        sidecar.write_text(info.to_json(), encoding="utf-8")
        temporary.write_bytes(plan)
    trust(info.plan_sha256)
    return target


def _verify(bundle: Bundle, plan: memoryview, info: EngineInfo) -> dict[str, Any]:
    """Compare the engine's labels with the ONNX file's, on the photos of exports, if a GPU here runs it."""
    try:
        found = Cuda().gpu.compute_capability
    except BackendUnavailableError as error:
        return not_run(str(error))
    if not runs_on(info.compute_capability, found):
        return not_run(f"the GPU here has compute capability {found}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "engine.plan"
        file.write_bytes(plan)
        file.with_suffix(".json").write_text(info.to_json(), encoding="utf-8")
        with TensorRTBackend(file, bundle=bundle) as engine:
            return compare(engine, bundle, default_photos())


def pick_flavor(flavor: str) -> str:
    """Resolve ``"auto"``: TensorRT on a machine with it and a GPU, else TensorRT-RTX."""
    if flavor != "auto":
        return flavor
    try:
        load_tensorrt("tensorrt")
        Cuda()
        return "tensorrt"
    except BackendUnavailableError as first:
        try:
            load_tensorrt("tensorrt-rtx")
        except BackendUnavailableError as second:
            raise BackendUnavailableError(f"no TensorRT can compile here: {second}; {first}") from second
    return "tensorrt-rtx"


def _default_classes(bundle: Bundle) -> tuple[int, int, int]:
    """`DEFAULT_CLASSES` with room for the largest vocabulary in the bundle."""
    minimum, optimum, maximum = DEFAULT_CLASSES
    sizes = [len(Vocabulary.load(bundle.file(file))) for file in bundle.vocabularies.values()]
    return minimum, optimum, max([maximum, *sizes])


def _sizes(spec: InputSpec, chosen: tuple[int, int] | None) -> Any:
    """Minimum, optimum and maximum input size `(H, W)`."""
    nominal = spec.height, spec.width
    if chosen is None and not spec.fixed:
        # The input sizes of the widest and the tallest image.
        (low, wide), (high, narrow) = input_size(1, 1000, spec), input_size(1000, 1, spec)
        return (low, narrow), nominal, (high, wide)
    size = chosen or nominal
    if problem := misfit(size, spec.multiple):
        raise BackendError(f"--input-size: {problem}")
    if spec.fixed and size != nominal:
        raise BackendError(
            f"--input-size is {size}; this bundle takes {nominal} only. Export another one for this size."
        )
    return size, size, size


def _check_precision(
    layers: dict[str, int], required: str | None, bundle: Bundle, stored_as: str | None
) -> None:
    """Refuse a network whose precision is not `required`, or not the manifest's if nothing is required."""
    found, reason = next(iter(layers)), f"--precision is {required}"
    if required is None and bundle.precision in PRECISIONS:  # "int8-weights" is not: it computes in fp32.
        required, reason = bundle.precision, f"{bundle.name}'s manifest says {bundle.precision}"
    if required in (None, found):
        return
    share = f"{layers.get(required, 0)} of {sum(layers.values())} convolutions and matrix products"
    stored = f" (its weights are only stored as {stored_as})" if stored_as else ""
    raise BackendError(
        f"{reason}, but the ONNX file computes in {found}{stored}: {share} in {required}. TensorRT takes the "
        "precision from the file: export the bundle in the precision you want (int8 with a lower --gate has "
        f"more int8 layers), or accept the file's with --precision {found}."
    )


def _build(
    trt: Any, builder: Any, network: Any, logger: Any, shapes: dict[str, Any], options: Options
) -> tuple[memoryview, dict[str, Any]]:
    """Build the plan; returns it with the builder's settings for the sidecar."""
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, *shape)
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"TensorRT refuses the shapes {shapes}: {' '.join(logger.errors)}")
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if (file := options.timing_cache) is not None:
        cache = config.create_timing_cache(file.read_bytes() if file.exists() else b"")
        if cache is None or not config.set_timing_cache(cache, False):
            raise BackendError(f"{file} is not a timing cache of this TensorRT and GPU; name another file")
    with stop_signal() as stopped:
        config.progress_monitor = networks.progress_monitor(trt, stopped)
        plan = builder.build_serialized_network(network, config)
    if stopped():
        raise KeyboardInterrupt
    if plan is None:
        reason = " ".join(logger.errors) or "no reason given"
        raise BackendError(f"TensorRT cannot compile the network: {reason}")
    if file is not None:
        with atomic_write(file) as temporary:
            temporary.write_bytes(memoryview(cache.serialize()))
    # By default, TensorRT lets fp32 products use TF32, with 10 bits of mantissa.
    tf32 = bool(config.get_flag(trt.BuilderFlag.TF32))
    return memoryview(plan), {"optimization_level": config.builder_optimization_level, "tf32": tf32}


def _name(info: EngineInfo) -> str:
    """A file name that differs between GPUs, versions, precisions and sizes."""
    gpu = f"sm{info.compute_capability.replace('.', '')}" if info.gpu else "portable"
    # Names of open_clip's models have characters that file names cannot have.
    model = re.sub(r"[^\w.+-]+", "-", info.model)
    parts = [model, info.flavor, info.tensorrt_version, gpu, info.precision]
    if size := info.options["input_size"]:
        parts.append(f"{size[0]}x{size[1]}")
    return "-".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `run_command`."""
    parser = argparse.ArgumentParser(prog="to_trt.py", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--bundle", required=True, help="the bundle's folder, or a model's name")
    add("--flavor", default="auto", choices=["auto", *FLAVORS], help="(default: %(default)s)")
    add("--out", type=path, metavar="DIR", help=f"(default: BUNDLE/{ENGINES})")
    text = "batch size: MIN OPT MAX or one number (default: {} {} {}; the bundle's, if that is fixed)"
    add("--batch", type=int, nargs="+", metavar="N", help=text.format(*DEFAULT_BATCH))
    text = "number of classes, likewise (default: {} {} {}, or more for a larger vocabulary in the bundle)"
    add("--classes", type=int, nargs="+", metavar="N", help=text.format(*DEFAULT_CLASSES))
    text = "fixed input size (default: the bundle's; all sizes if it follows the image)"
    add("--input-size", "--imgsz", type=int, nargs=2, metavar=("H", "W"), help=text)
    add("--precision", choices=PRECISIONS, help="fail unless the ONNX file computes in it")
    add("--workspace", type=int, metavar="MB", help="maximum scratch memory of a layer")
    add("--timing-cache", type=path, metavar="FILE", help="keep kernel timings here (TensorRT; RTX has none)")
    options = parser.parse_args(arguments)
    return run_command("to_trt", lambda: _run(options))


def _run(given: argparse.Namespace) -> int:
    flavor = pick_flavor(given.flavor)
    if flavor == "tensorrt-rtx" and given.timing_cache:
        raise BackendError("--timing-cache: TensorRT-RTX measures no kernels at build time. Leave it out.")
    options = Options(
        batch=_three("batch", given.batch),
        classes=_three("classes", given.classes),
        input_size=tuple(given.input_size) if given.input_size else None,
        precision=given.precision,
        workspace_mb=given.workspace,
        timing_cache=given.timing_cache,
    )
    bundle = find_bundle(given.bundle)
    plan = compile_engine(bundle, flavor, given.out or bundle.path / ENGINES, options)
    info = EngineInfo.read(plan)
    stored = f" (weights stored as {info.stored_as})" if info.stored_as != info.precision else ""
    share = f"{info.layers[info.precision]} of {sum(info.layers.values())} products"
    print(
        f"{plan} ({info.plan_size / 1e6:.1f} MB)\n"
        f"{info.flavor} {info.tensorrt_version} for {info.gpu or 'GPUs of compute capability'} "
        f"{info.compute_capability}; computes in {info.precision}{stored}, {share}: {dict(info.layers)}"
    )
    report = info.verification
    if report["status"] == "passed":
        agreement = f"{report['label_agreement']:.2%} of the labels (needed: {report['gate']:.2%})"
        print(f"on this GPU it agrees with the ONNX file on {agreement}")
    else:
        print(
            f"its labels were not compared here: {report['reason']}. The SDK does it when it first loads it."
        )
    return 0


def _three(name: str, values: Sequence[int] | None) -> tuple[int, int, int] | None:
    """Minimum, optimum and maximum from one or three numbers."""
    if values is None:
        return None
    if len(values) not in (1, 3):
        raise BackendError(f"--{name} has {len(values)} numbers; expected MIN OPT MAX, or one for all three")
    return values[0], values[len(values) // 2], values[-1]


if __name__ == "__main__":
    sys.exit(main())
