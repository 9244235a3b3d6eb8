"""The sidecar of a TensorRT engine: the model, machine and TensorRT that a plan was compiled for.

A plan is opaque, and TensorRT gives little reason for refusing one. So every `NAME.plan` has a `NAME.json`
beside it, which is compared with the bundle and the machine before TensorRT reads the plan. The plan itself
is unchanged: `trtexec` and Triton read it.
"""

import dataclasses
import json
import logging
import platform
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pixelclip_sdk.errors import BackendError
from pixelclip_sdk.support.files import cache_folder, is_file, sha256
from pixelclip_sdk.support.json_files import read_json

_log = logging.getLogger(__name__)

ENGINES = "engines"
"""Name of the folder of engines in a bundle."""

FLAVORS: Mapping[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour of TensorRT → its Python module."""

RTX_CAPABILITIES = "8.0, 8.6, 8.9, 12.0+"
"""The GPUs that TensorRT-RTX 1.7 runs on, as its runtime lists them.

Orin (8.7), Hopper (9.0), Blackwell B200 (10.x) and Thor (11.0) are not among them: they need TensorRT.
"""

SCHEMA_VERSION = 1
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """An input or output of an engine."""

    name: str  # In the ONNX graph.
    mode: str  # "input" or "output".
    dtype: str  # Name of the numpy dtype.
    shape: tuple[int, ...]  # −1 where a size varies.
    # Minimum, optimum (for tuning) and maximum shape of an input; None for an output.
    profile: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.name, self.mode, self.dtype)):
            raise BackendError(
                f"a tensor is {self.name!r}, {self.mode!r}, {self.dtype!r}; expected three texts"
            )
        rank = len(self.shape)
        if self.profile is None:
            fits = self.mode == "output"
        elif fits := self.mode == "input" and [len(shape) for shape in self.profile] == [rank] * 3:
            fits = all(1 <= low <= usual <= high for low, usual, high in zip(*self.profile, strict=True))
        if not fits:
            raise BackendError(
                f"tensor {self.name!r} has mode {self.mode!r} and profile {self.profile}; expected an output "
                f"without a profile, or an input with three shapes of {rank} sizes, 1 ≤ min ≤ opt ≤ max"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """The content of a sidecar, `NAME.json`, which describes `NAME.plan`."""

    model: str  # Name of the bundle.
    flavor: str  # "tensorrt" or "tensorrt-rtx".
    tensorrt_version: str  # The version that built the plan, and the only one that runs it.
    # "8.6" for GPUs of one compute capability, or a list: "8.0, 8.6, 12.0+", in which + adds all newer ones.
    compute_capability: str
    gpu: str  # Name of the GPU that the plan was tuned on; empty if it was built without one.
    system: str  # Operating system and processor of the build, e.g. "Linux x86_64".
    precision: str  # Of most convolutions and matrix products: "fp32", "fp16", "bf16" or "int8".
    layers: Mapping[str, int]  # Precision → number of convolutions and matrix products.
    stored_as: str  # Precision of the weights in the ONNX file; arithmetic may differ.
    tensors: tuple[TensorInfo, ...]
    onnx_sha256: str  # Of the `image_encoder.onnx` that the plan was compiled from.
    plan_size: int  # In bytes.
    plan_sha256: str
    options: Mapping[str, Any]  # Of `export/to_trt.py`: batch, classes, input size, …
    # Comparison with the ONNX file: ``status`` is "passed", with numbers and the compute capability it passed
    # on, or "not run", with the reason. Empty in sidecars of older versions.
    verification: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            kind: Any = get_origin(field.type) or field.type
            if not isinstance(value := getattr(self, field.name), kind):
                raise BackendError(f"{field.name} is {value!r}; expected a {kind.__name__}")
        if self.flavor not in FLAVORS:
            raise BackendError(f"flavor is {self.flavor!r}; expected one of {', '.join(FLAVORS)}")
        for capability in self.compute_capability.split(", "):
            _capability(capability)

    @classmethod
    def read(cls, plan: Path) -> "EngineInfo":
        """Read the sidecar of a plan; raise BackendError if it is missing, damaged or of another version."""
        file = plan.with_suffix(".json")
        try:
            fields = read_json(file)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"{plan} has no readable sidecar {file.name}: {error}. "
                "Expected both files as export/to_trt.py wrote them"
            ) from error
        version = fields.get("schema_version") if isinstance(fields, dict) else None
        if version != SCHEMA_VERSION:
            raise BackendError(
                f"{file} has schema version {version!r}; this pixelclip_sdk reads {SCHEMA_VERSION}. "
                "Compile the engine again with export/to_trt.py of this version."
            )
        try:
            tensors = tuple(_tensor(tensor) for tensor in fields.pop("tensors"))
            return cls(**fields, tensors=tensors)
        except (BackendError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise BackendError(
                f"{file} is not a sidecar of an engine: {error}. Compile it again with export/to_trt.py"
            ) from error

    def to_json(self) -> str:
        """Return the text of the sidecar."""
        fields = dataclasses.asdict(self)
        return json.dumps({"schema_version": fields.pop("schema_version"), **fields}, indent=1) + "\n"

    def tensor(self, name: str) -> TensorInfo:
        """Return the tensor of that name; raise BackendError if there is none."""
        found = {tensor.name: tensor for tensor in self.tensors}
        if name not in found:
            raise BackendError(
                f"the engine has no tensor {name!r}; it has {', '.join(found)}. "
                "Expected the tensors of a bundle's image encoder."
            )
        return found[name]

    def rebuild_command(self, plan: Path, bundle: Path) -> str:
        """Return the command that compiles this engine again, in the same folder with the same shapes."""
        words = ["python", "export/to_trt.py", "--bundle", str(bundle), "--flavor", self.flavor]
        for option in ("batch", "classes", "input_size", "precision", "workspace_mb"):
            if given := self.options.get(option):
                values = given if isinstance(given, list | tuple) else [given]
                words += [f"--{option.removesuffix('_mb').replace('_', '-')}", *map(str, values)]
        if plan.parent != bundle / ENGINES:
            words += ["--out", str(plan.parent)]
        return shlex.join(words)

    def check_bundle(self, plan: Path, *, onnx_sha256: str, bundle: Path) -> None:
        """Raise BackendError unless the plan is complete and was compiled from this ONNX file.

        The message has the command that compiles it again; `bundle` is the folder in that command.
        """
        self._check_same(plan, bundle, "the hash of its ONNX file", self.onnx_sha256, onnx_sha256)
        try:
            self._check_same(plan, bundle, "its size in bytes", str(self.plan_size), str(plan.stat().st_size))
            self._check_same(plan, bundle, "its SHA-256", self.plan_sha256, sha256(plan))
        except OSError as error:
            raise BackendError(f"{plan} cannot be read: {error.strerror}") from error

    def check_tensorrt(self, plan: Path, *, flavor: str, version: str, bundle: Path) -> None:
        """Raise BackendError unless this machine's TensorRT is the one that compiled the plan."""
        self._check_same(plan, bundle, "flavour of TensorRT", self.flavor, flavor)
        self._check_same(plan, bundle, f"version of {flavor}", self.tensorrt_version, version)
        # TensorRT-RTX compiles for Linux and Windows at once, TensorRT for the system that it runs on.
        if flavor == "tensorrt":
            self._check_same(plan, bundle, "system", self.system, system())

    def check_gpu(self, plan: Path, *, compute_capability: str, bundle: Path) -> None:
        """Raise BackendError unless GPUs of this compute capability, e.g. ``"8.6"``, run the plan."""
        if runs_on(self.compute_capability, compute_capability):
            return
        # Another build of TensorRT-RTX would not run either.
        dataclasses.replace(self, flavor="tensorrt")._check_same(
            plan, bundle, "the GPU's compute capability", self.compute_capability, compute_capability
        )

    def _check_same(self, plan: Path, bundle: Path, what: str, expected: str, found: str) -> None:
        if found != expected:
            found, expected = (text[:12] if _SHA256.fullmatch(text) else text for text in (found, expected))
            raise BackendError(
                f"{plan} cannot be used: {what} is {found}; the engine was compiled for {expected}. "
                f"Compile it again: {self.rebuild_command(plan, bundle)}"
            )


def engine_files(bundle: Path) -> list[Path]:
    """Return the plans in a bundle's folder, newest first."""
    # The name of a file that is still being written starts with a dot.
    plans = (bundle / ENGINES).glob("[!.]*.plan")
    return sorted(plans, key=lambda plan: (-_modified(plan), plan.name))


def _modified(file: Path) -> float:
    """Return the time of the last change in seconds since 1970; 0 for a broken link."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def trust(plan_sha256: str) -> None:
    """Record that a plan was compiled on this machine, so that ``backend="auto"`` may load it.

    An engine contains machine code, so one that came with a downloaded bundle must not run unasked. The
    record is an empty file in the user's cache folder. If it cannot be written, a warning is logged.
    """
    try:
        record = _trust_record(plan_sha256)
        if record is None:
            raise OSError("this user has no home folder; set PIXELCLIP_HOME")
        record.parent.mkdir(parents=True, exist_ok=True)
        record.touch()
    except OSError as error:
        _log.warning('cannot record the engine for backend="auto"; use backend="tensorrt": %s', error)


def is_trusted(plan_sha256: str) -> bool:
    """Return whether `trust` recorded this plan on this machine."""
    record = _trust_record(plan_sha256)
    # A sidecar may hold any text as its hash, also a path.
    return _SHA256.fullmatch(plan_sha256) is not None and record is not None and is_file(record)


def _trust_record(plan_sha256: str) -> Path | None:
    cache = cache_folder()
    return None if cache is None else cache / "trusted-engines" / plan_sha256


def runs_on(capabilities: str, found: str) -> bool:
    """Return whether a compute capability, e.g. ``"8.6"``, is in a list such as ``"8.0, 8.6, 12.0+"``.

    A ``+`` adds all newer ones.
    """
    for one in capabilities.split(", "):
        if _capability(found) == _capability(one):
            return True
        if one.endswith("+") and _capability(found) > _capability(one):
            return True
    return False


def system() -> str:
    """Return the operating system and processor of this machine, e.g. ``"Linux x86_64"``."""
    return f"{platform.system()} {platform.machine()}"


def _capability(text: str) -> tuple[int, int]:
    major, dot, minor = text.removesuffix("+").partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise BackendError(f'compute capability is {text!r}; expected e.g. "8.6" or "8.0, 8.6, 12.0+"')
    return int(major), int(minor)


def _tensor(fields: Mapping[str, Any]) -> TensorInfo:
    profile = fields["profile"]
    if profile is not None:
        profile = tuple(map(tuple, profile))
    return TensorInfo(**{**fields, "shape": tuple(fields["shape"]), "profile": profile})
