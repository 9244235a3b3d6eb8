"""Compile a bundle for TensorRT: ``python export/to_trt.py --bundle BUNDLE``.

Writes a plain plan and a sidecar that says what it is (docs/tensorrt.md). Precision is the ONNX file's: the
network is strongly typed, and what it computes in is read off it, printed and written down. A failed or
interrupted build leaves an older engine whole.
"""

import argparse
import dataclasses
import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from export.trt import (
    Progress,
    describe_tensors,
    fold_storage,
    make_symmetric,
    parse,
    precisions,
    profiles,
)
from pixelclip_sdk import BackendError, BackendUnavailableError, Bundle, PixelClipError, Vocabulary
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.engine import ENGINES, FLAVORS, EngineInfo, system
from pixelclip_sdk.backends.limits import Limits
from pixelclip_sdk.backends.trt import load_tensorrt, make_logger
from pixelclip_sdk.bundle import IMAGE_ENCODER, InputSpec, misfit
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.preprocess import input_size
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.signals import sigterm_interrupts, stop_signal

__all__ = ["DEFAULT_BATCH", "DEFAULT_CLASSES", "Options", "compile_engine", "main", "pick_flavor"]

# Tuned for the frame of a camera; predict_batch may send some at once.
DEFAULT_BATCH = (1, 1, 4)
# K is a dimension of one small matrix product, so a wide range costs no time, but memory: logits of 512
# classes and 4 pictures are 34 MB on the GPU and as much on the host.
DEFAULT_CLASSES = (1, 32, 512)
_MOST_WORKSPACE_MB = 1 << 23  # 8 TiB
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
# GPUs that a TensorRT-RTX engine runs on where it was told no more: Ampere and everything after.
_RTX_CAPABILITY = "8.0+"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to compile.

    Attributes:
        batch: Pictures at once: least, usual, most; None for the bundle's only number of them, or where any
            goes for `DEFAULT_BATCH`.
        classes: Texts K: least, usual, most; None for `DEFAULT_CLASSES`, or more where the bundle has a
            larger vocabulary.
        imgsz: The only input size `(H, W)`; None for the bundle's own, or for all
            that a bundle takes whose size follows the picture.
        precision: Refuse to compile a network that computes in another; None for whatever it is.
        workspace_mb: Most scratch memory for a layer, in MiB; None for TensorRT's own limit.
        timing_cache: File of measured kernels to start from and add to (TensorRT; RTX measures none).
    """

    batch: tuple[int, int, int] | None = None
    classes: tuple[int, int, int] | None = None
    imgsz: tuple[int, int] | None = None
    precision: str | None = None
    workspace_mb: int | None = None
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "classes"):
            values = getattr(self, name)
            if values is None:
                continue
            least, usual, most = values
            if not 1 <= least <= usual <= most < 2**31:
                raise BackendError(f"--{name} is {values}; expected 1 ≤ min ≤ opt ≤ max < 2³¹")
        if self.workspace_mb is not None and not 1 <= self.workspace_mb <= _MOST_WORKSPACE_MB:
            raise BackendError(
                f"--workspace is {self.workspace_mb}; expected 1 to {_MOST_WORKSPACE_MB} (MiB)"
            )


def compile_engine(bundle: Bundle, flavor: str, out: Path, options: Options) -> Path:
    """Compile a bundle's image encoder.

    Args:
        bundle: The model.
        flavor: ``"tensorrt"`` (needs the GPU it is for) or ``"tensorrt-rtx"`` (needs none).
        out: Folder for the plan and its sidecar.
        options: How.

    Returns:
        The plan.

    Raises:
        BackendUnavailableError: TensorRT, or the GPU it needs to compile, is not there.
        BackendError: TensorRT refuses the model, or its precision is not the one that was asked for.
        BundleError: The ONNX file is not the one that was exported.
        OutputError: The files cannot be written.
    """
    source = bundle.file(IMAGE_ENCODER)
    batch = options.batch or ((bundle.input.batch,) * 3 if bundle.input.batch else DEFAULT_BATCH)
    classes = options.classes or _default_classes(bundle)
    sizes = _sizes(bundle.input, options.imgsz)
    trt = load_tensorrt(flavor)
    gpu, capability = "", _RTX_CAPABILITY
    if flavor == "tensorrt":
        found = Cuda().gpu
        gpu, capability = found.name, found.compute_capability
    model = onnx.load(source)
    expanded = fold_storage(model)
    make_symmetric(model)
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    # TensorRT 11 and RTX know nothing else; TensorRT 10 would choose precisions of its own.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    content = model.SerializeToString()
    del model
    parse(trt, network, logger, content, source)
    layers = precisions(network)
    precision = next(iter(layers))
    _check_precision(precision, layers, options.precision, bundle, expanded)
    inputs = {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}
    shapes = profiles(inputs, batch=batch, classes=classes, sizes=sizes)
    tensors = describe_tensors(network, shapes)
    plan, settings = _build(trt, builder, network, logger, shapes, options)
    info = EngineInfo(
        model=bundle.name,
        flavor=flavor,
        tensorrt_version=trt.__version__,
        compute_capability=capability,
        gpu=gpu,
        system=system(),
        precision=precision,
        layers=layers,
        stored_as=_stored_as(bundle),
        tensors=tensors,
        onnx_sha256=bundle.files[IMAGE_ENCODER]["sha256"],
        plan_size=plan.nbytes,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        options={
            "batch": batch,
            "classes": classes,
            "imgsz": options.imgsz,
            "precision": options.precision,
            "workspace_mb": options.workspace_mb,
            **settings,
        },
    )
    Limits.of(info, bundle.embedding_dim)  # What the SDK checks when it loads the engine.
    target = out / f"{_name(info)}.plan"
    # Both are whole before either takes its place.
    with atomic_write(target.with_suffix(".json")) as sidecar, atomic_write(target) as temporary:
        sidecar.write_text(info.to_json(), encoding="utf-8")
        temporary.write_bytes(plan)
    return target


def pick_flavor(flavor: str) -> str:
    """The flavour that ``"auto"`` means: TensorRT if it and a GPU are there, else TensorRT-RTX.

    Raises:
        BackendUnavailableError: Neither is installed.
    """
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
    """As many texts as usual, and no fewer than any vocabulary in the bundle has."""
    least, usual, most = DEFAULT_CLASSES
    sizes = [len(Vocabulary.load(bundle.file(file))) for file in bundle.vocabularies.values()]
    return least, usual, max([most, *sizes])


def _sizes(spec: InputSpec, imgsz: tuple[int, int] | None) -> Any:
    """Least, usual and largest input size `(H, W)`."""
    nominal = spec.height, spec.width
    if imgsz is not None:
        if problem := misfit(imgsz, spec.multiple):
            raise BackendError(f"--imgsz: {problem}")
        if spec.fixed and imgsz != nominal:
            raise BackendError(
                f"--imgsz is {imgsz}; this bundle takes {nominal} only. Export another for another size."
            )
        return imgsz, imgsz, imgsz
    if spec.fixed:
        return nominal, nominal, nominal
    # Everything that a picture's shape can lead to: the flattest and the tallest.
    (low, wide), (high, narrow) = input_size(1, 1000, spec), input_size(1000, 1, spec)
    return (low, narrow), nominal, (high, wide)


def _check_precision(
    found: str, layers: dict[str, int], wanted: str | None, bundle: Bundle, expanded: bool
) -> None:
    """Refuse an engine of another precision than was asked for.

    Where nothing was asked for, the manifest's word counts; weights that are merely stored small excuse
    nothing, unless the manifest says so (``"int8-weights"``).
    """
    if wanted is None and bundle.precision in PRECISIONS:
        wanted = bundle.precision
        said = f"{bundle.name}'s manifest says {wanted}"
    else:
        said = f"asked for {wanted}"
    if wanted is None or wanted == found:
        return
    share = f"{layers.get(wanted, 0)} of {sum(layers.values())} convolutions and matrix products in {wanted}"
    stored = f" (its weights are only stored as {_stored_as(bundle)})" if expanded else ""
    raise BackendError(
        f"{said}, but the ONNX file computes in {found}{stored}: {share}. TensorRT takes precision from the "
        "file: export the bundle in the precision you want (int8 with a lower --gate has more int8 layers), "
        f"or take it as it is with --precision {found}."
    )


def _stored_as(bundle: Bundle) -> str:
    """Precision of the weights in the file: ``"int8"`` of an ``"int8-weights"`` bundle."""
    return bundle.precision.removesuffix("-weights")


def _build(
    trt: Any, builder: Any, network: Any, logger: Any, shapes: dict[str, Any], options: Options
) -> tuple[memoryview, dict[str, Any]]:
    """The plan, and the builder's settings that matter for it."""
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in shapes.items():
        profile.set_shape(name, least, usual, most)
    if config.add_optimization_profile(profile) < 0:
        raise BackendError(f"TensorRT refuses the shapes {shapes}: {' '.join(logger.errors)}")
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    cache = _timing_cache(config, options.timing_cache)
    with stop_signal() as stopped:
        progress = Progress(stopped)
        if (monitor := progress.monitor(trt)) is not None:
            config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    progress.clear()
    if stopped():
        raise KeyboardInterrupt
    if plan is None:
        raise BackendError(
            f"TensorRT cannot compile the network: {' '.join(logger.errors) or 'it gave no reason'}"
        )
    if cache is not None and options.timing_cache is not None:
        with atomic_write(options.timing_cache) as temporary:
            temporary.write_bytes(memoryview(cache.serialize()))
    settings = {
        "optimization_level": config.builder_optimization_level,
        # fp32 products may use TF32's 10 bits of mantissa, TensorRT's default.
        "tf32": bool(config.get_flag(trt.BuilderFlag.TF32)),
    }
    return memoryview(plan), settings


def _timing_cache(config: Any, file: Path | None) -> Any:
    if file is None:
        return None
    try:
        content = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise BackendError(f"--timing-cache {file} cannot be read: {error.strerror}") from error
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise BackendError(f"{file} is no timing cache of this TensorRT and GPU; name another file")
    return cache


def _name(info: EngineInfo) -> str:
    """A file name that keeps engines for different machines and sizes apart."""
    where = "portable" if info.capability_is_minimum else f"sm{info.compute_capability.replace('.', '')}"
    # open_clip's models have names with what file names cannot have.
    parts = [re.sub(r"[^\w.-]+", "-", info.model), info.flavor, info.tensorrt_version, where, info.precision]
    if imgsz := info.options["imgsz"]:
        parts.append(f"{imgsz[0]}x{imgsz[1]}")
    return "-".join(parts)


@sigterm_interrupts()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 it cannot be done, 130 interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", required=True, help="the bundle's folder, or a model's name")
    parser.add_argument("--flavor", default="auto", choices=["auto", *FLAVORS], help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"(default: BUNDLE/{ENGINES})")
    for name, default, what, unless in (
        ("batch", DEFAULT_BATCH, "pictures at once", "; the bundle's if it has one"),
        ("classes", DEFAULT_CLASSES, "classes K", ", or more if a vocabulary in the bundle has more"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            nargs="+",
            metavar="N",
            help=f"{what}: MIN OPT MAX or one number (default: {' '.join(map(str, default))}{unless})",
        )
    parser.add_argument(
        "--imgsz",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="the only input size (default: the bundle's; of one that follows the picture's shape, all)",
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="fail unless the ONNX file computes in it")
    parser.add_argument("--workspace", type=int, metavar="MB", help="most scratch memory for a layer")
    parser.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="keep kernel timings here (TensorRT; RTX has none)"
    )
    given = parser.parse_args(arguments)
    try:
        flavor = pick_flavor(given.flavor)
        if flavor == "tensorrt-rtx" and given.timing_cache:
            raise BackendError(
                "--timing-cache: TensorRT-RTX times no kernels when it compiles. Leave it out."
            )
        options = Options(
            batch=_three("batch", given.batch),
            classes=_three("classes", given.classes),
            imgsz=tuple(given.imgsz) if given.imgsz else None,
            precision=given.precision,
            workspace_mb=given.workspace,
            timing_cache=given.timing_cache,
        )
        bundle = find_bundle(given.bundle)
        plan = compile_engine(bundle, flavor, given.out or bundle.path / ENGINES, options)
    except KeyboardInterrupt:
        print("to_trt: interrupted; nothing was written", file=sys.stderr)
        return 130
    except (
        PixelClipError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # The last three are TensorRT's and onnx's.
        print(f"to_trt: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(_summary(plan, EngineInfo.read(plan)))
    return 0


def _three(name: str, values: Sequence[int] | None) -> tuple[int, int, int] | None:
    if values is None:
        return None
    if len(values) == 1:
        return values[0], values[0], values[0]
    if len(values) != 3:
        raise BackendError(f"--{name} has {len(values)} numbers; expected MIN OPT MAX, or one for all three")
    return values[0], values[1], values[2]


def _summary(plan: Path, info: EngineInfo) -> str:
    stored = f" (weights stored as {info.stored_as})" if info.stored_as != info.precision else ""
    share = f"{info.layers[info.precision]} of {sum(info.layers.values())} products"
    return (
        f"{plan} ({info.plan_size / 1e6:.1f} MB)\n"
        f"{info.flavor} {info.tensorrt_version} for {info.gpu or 'GPUs of compute capability'} "
        f"{info.compute_capability}; computes in {info.precision}{stored}, {share}: {dict(info.layers)}"
    )


if __name__ == "__main__":
    sys.exit(main())
