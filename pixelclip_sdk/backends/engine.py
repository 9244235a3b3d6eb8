"""The sidecar of a TensorRT engine: what a plan was compiled from, for and with.

A plan is opaque, and TensorRT says little about one that it cannot use. So every `NAME.plan` has a
`NAME.json` beside it, and what it says is compared with the bundle and the machine before TensorRT sees a
byte of the plan. Nothing is glued to the plan itself: `trtexec` and Triton read it as it is.
"""

import dataclasses
import json
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import BackendError
from pixelclip_sdk.support.files import sha256

__all__ = ["ENGINES", "FLAVORS", "EngineInfo", "TensorInfo", "engine_files", "system"]

ENGINES = "engines"
"""The folder of a bundle that holds its engines."""

FLAVORS: Mapping[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Flavour of TensorRT → its Python module."""

SCHEMA_VERSION = 1

_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("model", "flavor", "tensorrt_version", "compute_capability", "gpu", "system"), str),
    **dict.fromkeys(("precision", "stored_as", "onnx_sha256", "plan_sha256"), str),
    **{"layers": dict, "tensors": list, "plan_size": int, "options": dict},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """An input or output of an engine.

    Attributes:
        name: As in the ONNX graph.
        mode: ``"input"`` or ``"output"``.
        dtype: As numpy calls it.
        shape: −1 where it varies.
        profile: Of an input the least, the usual (kernels are tuned for it) and the largest shape; None of
            an output.
    """

    name: str
    mode: str
    dtype: str
    shape: tuple[int, ...]
    profile: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("input", "output") or (self.mode == "input") != (self.profile is not None):
            raise BackendError(
                f"tensor {self.name!r} has mode {self.mode!r} and profile {self.profile}; "
                "expected an input with a profile, or an output without"
            )
        if self.profile is None:
            return
        rank = len(self.shape)
        if len(self.profile) != 3 or any(len(shape) != rank for shape in self.profile):
            raise BackendError(
                f"tensor {self.name!r} has profile {self.profile}; expected three shapes of {rank}"
            )
        if not all(1 <= low <= usual <= high for low, usual, high in zip(*self.profile, strict=True)):
            raise BackendError(
                f"tensor {self.name!r} has profile {self.profile}; expected 1 ≤ min ≤ opt ≤ max"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineInfo:
    """What `NAME.json` says about `NAME.plan`.

    Attributes:
        model: The bundle's name.
        flavor: ``"tensorrt"`` or ``"tensorrt-rtx"``.
        tensorrt_version: The version that built the plan, which is the only one that runs it.
        compute_capability: The GPUs that run it: ``"8.6"`` for one compute capability, or a list such as
            ``"8.0, 8.6, 12.0+"``, in which ``+`` adds all newer ones.
        gpu: Name of the GPU that it was tuned on; empty if it was built without one.
        system: Operating system and processor it was built on, e.g. ``"Linux x86_64"``.
        precision: What most convolutions and matrix products compute in: ``"fp32"``, ``"fp16"``, ``"bf16"``
            or ``"int8"``.
        layers: Precision → number of convolutions and matrix products.
        stored_as: Precision of the weights in the ONNX file, which says nothing about arithmetic.
        tensors: Inputs and outputs.
        onnx_sha256: Hash of the `image_encoder.onnx` that it was compiled from.
        plan_size: Bytes of the plan.
        plan_sha256: Hash of the plan.
        options: What `export/to_trt.py` was told: batch, classes, imgsz, …
        schema_version: Version of this layout.
    """

    model: str
    flavor: str
    tensorrt_version: str
    compute_capability: str
    gpu: str
    system: str
    precision: str
    layers: Mapping[str, int]
    stored_as: str
    tensors: tuple[TensorInfo, ...]
    onnx_sha256: str
    plan_size: int
    plan_sha256: str
    options: Mapping[str, Any]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.flavor not in FLAVORS:
            raise BackendError(f"flavor is {self.flavor!r}; expected one of {', '.join(FLAVORS)}")
        for capability in self.compute_capability.split(", "):
            _capability(capability)

    @classmethod
    def read(cls, plan: Path) -> "EngineInfo":
        """Read the sidecar of a plan.

        Raises:
            BackendError: There is none, or it cannot be read.
        """
        file = plan.with_suffix(".json")
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
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
            for key, kind in _TYPES.items():
                if type(fields[key]) is not kind:
                    raise TypeError(f"{key} is {fields[key]!r}; expected a {kind.__name__}")
            tensors = tuple(_tensor(tensor) for tensor in fields.pop("tensors"))
            return cls(**fields, tensors=tensors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BackendError(
                f"{file} is no sidecar of an engine: {error}. Compile the engine again with export/to_trt.py"
            ) from error

    def to_json(self) -> str:
        """The sidecar's text."""
        fields = dataclasses.asdict(self)
        return json.dumps({"schema_version": fields.pop("schema_version"), **fields}, indent=1) + "\n"

    def tensor(self, name: str) -> TensorInfo:
        """The tensor of that name.

        Raises:
            BackendError: The engine has none.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise BackendError(
            f"the engine has no tensor {name!r}; it has {', '.join(t.name for t in self.tensors)}. "
            "Expected the contract of a bundle's image encoder."
        )

    def runs_on(self, compute_capability: str) -> bool:
        """Whether GPUs of this compute capability, e.g. ``"8.6"``, run the engine."""
        found = _capability(compute_capability)
        return any(
            found == _capability(one) or (one.endswith("+") and found > _capability(one))
            for one in self.compute_capability.split(", ")
        )

    def rebuild_command(self, plan: Path, bundle: Path) -> str:
        """The command that compiles this engine again, into the same folder and with the same shapes."""
        words = ["python", "export/to_trt.py", "--bundle", str(bundle), "--flavor", self.flavor]
        for option in ("batch", "classes", "imgsz", "precision", "workspace_mb"):
            if given := self.options.get(option):
                values = given if isinstance(given, list | tuple) else [given]
                words += [f"--{option.removesuffix('_mb')}", *map(str, values)]
        if plan.parent != bundle / ENGINES:
            words += ["--out", str(plan.parent)]
        return shlex.join(words)

    def check_bundle(self, plan: Path, *, onnx_sha256: str, bundle: Path) -> None:
        """Check that the plan is whole, and was compiled from the bundle as it is now.

        Args:
            plan: The plan.
            onnx_sha256: Hash of the bundle's image encoder.
            bundle: The bundle's folder, for the command in the message.

        Raises:
            BackendError: It is not; the message says what differs and how to compile it again.
        """
        if onnx_sha256 != self.onnx_sha256:
            raise self._differs(
                plan, bundle, "the ONNX file it came from", self.onnx_sha256[:12], onnx_sha256[:12]
            )
        try:
            size = plan.stat().st_size
            if size != self.plan_size:
                raise self._differs(plan, bundle, "its size in bytes", str(self.plan_size), str(size))
            found = sha256(plan)
        except OSError as error:
            raise BackendError(f"{plan} cannot be read: {error.strerror}") from error
        if found != self.plan_sha256:
            raise self._differs(plan, bundle, "its SHA-256", self.plan_sha256[:12], found[:12])

    def check_tensorrt(self, plan: Path, *, flavor: str, version: str, bundle: Path) -> None:
        """Check that the TensorRT of this machine is the one the plan was compiled with.

        Args:
            plan: The plan.
            flavor: Flavour of the TensorRT that is to run it.
            version: Its version.
            bundle: The bundle's folder, for the command in the message.

        Raises:
            BackendError: It is not; the message says what differs and how to compile it again.
        """
        if flavor != self.flavor:
            raise self._differs(plan, bundle, "flavour of TensorRT", self.flavor, flavor)
        if version != self.tensorrt_version:
            raise self._differs(plan, bundle, f"version of {flavor}", self.tensorrt_version, version)
        # TensorRT-RTX compiles for Linux and Windows at once, TensorRT for where it runs.
        if flavor == "tensorrt" and system() != self.system:
            raise self._differs(plan, bundle, "system", self.system, system())

    def check_gpu(self, plan: Path, *, compute_capability: str, bundle: Path) -> None:
        """Check that a GPU is one the plan was compiled for.

        Args:
            plan: The plan.
            compute_capability: The GPU's, e.g. ``"8.6"``.
            bundle: The bundle's folder, for the command in the message.

        Raises:
            BackendError: It is not; the message says what differs and how to compile it again.
        """
        if not self.runs_on(compute_capability):
            # Another build of TensorRT-RTX would not run either.
            raise dataclasses.replace(self, flavor="tensorrt")._differs(
                plan, bundle, "the GPU's compute capability", self.compute_capability, compute_capability
            )

    def _differs(self, plan: Path, bundle: Path, what: str, expected: str, found: str) -> BackendError:
        return BackendError(
            f"{plan} cannot be used: {what} is {found}; the engine was compiled for {expected}. "
            f"Compile it again: {self.rebuild_command(plan, bundle)}"
        )


def engine_files(bundle: Path) -> list[Path]:
    """The plans in a bundle's folder, newest first."""
    # A file that is still being written has a name with a dot in front.
    plans = [plan for plan in (bundle / ENGINES).glob("*.plan") if not plan.name.startswith(".")]
    return sorted(plans, key=lambda plan: (-_written(plan), plan.name))


def _written(file: Path) -> float:
    """When, in seconds since 1970; 0 if it cannot be looked at: its name may lead nowhere."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def system() -> str:
    """Operating system and processor of this machine, e.g. ``"Linux x86_64"``."""
    return f"{platform.system()} {platform.machine()}"


def _capability(text: str) -> tuple[int, int]:
    major, dot, minor = text.removesuffix("+").partition(".")
    if not (dot and major.isdecimal() and minor.isdecimal()):
        raise BackendError(f'compute capability is {text!r}; expected e.g. "8.6" or "8.0, 8.6, 12.0+"')
    return int(major), int(minor)


def _tensor(fields: Mapping[str, Any]) -> TensorInfo:
    profile = fields["profile"]
    return TensorInfo(
        **{
            **fields,
            "shape": tuple(fields["shape"]),
            "profile": None if profile is None else tuple(tuple(shape) for shape in profile),
        }
    )
