"""Bundle: the folder a model ships in.

``bundle.json`` describes the model and lists every file with its size and SHA-256. A file is only handed
out after its hash was checked. Nothing in a bundle is a pickle.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pixelclip_sdk.errors import BundleError
from pixelclip_sdk.support.files import is_file, set_aside, sha256
from pixelclip_sdk.support.hints import did_you_mean

__all__ = [
    "IMAGE_ENCODER",
    "MANIFEST",
    "SCHEMA_VERSION",
    "TEXT_ENCODER",
    "TOKENIZER",
    "VOCABULARIES",
    "Bundle",
    "InputSpec",
]

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
IMAGE_ENCODER = "image_encoder.onnx"
TEXT_ENCODER = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
VOCABULARIES = "vocabularies"


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The sizes a model takes.

    Attributes:
        height: Nominal input height in pixels.
        width: Nominal input width in pixels.
        multiple: Input sides are multiples of this.
        fixed: True when the model takes the nominal size only, False when it takes any size whose sides
            are multiples of `multiple`.
        keep_aspect: True when a picture keeps its aspect ratio: at any size it is scaled to about
            `height * width` pixels, at a fixed one it is scaled to fit in and the rest is padded. False
            when it is squashed to the nominal size.
        batch: The only number of pictures the model takes at once, or None for any.
    """

    height: int
    width: int
    multiple: int
    fixed: bool
    keep_aspect: bool
    batch: int | None = None

    def __post_init__(self) -> None:
        if problem := misfit((self.height, self.width), self.multiple):
            raise BundleError(f"input {problem}")
        if not self.fixed and not self.keep_aspect:
            raise BundleError(
                "fixed and keep_aspect are both false, but squashing needs one size; set one of them"
            )
        if self.batch is not None and self.batch < 1:
            raise BundleError(f"input batch is {self.batch}; expected at least 1, or null for any")

    def resized(self, size: tuple[int, int]) -> "InputSpec":
        """The same with another nominal size `(H, W)`.

        Raises:
            BundleError: It is no size, the model takes one only, or a side is no positive multiple of
                `multiple`.
        """
        sides = tuple(size) if isinstance(size, list | tuple) else (size,)
        if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
            raise BundleError(f"input size is {size!r}; expected two whole numbers, (height, width)")
        height, width = sides
        if self.fixed and (height, width) != (self.height, self.width):
            raise BundleError(
                f"input size is {height}×{width}; this model takes {self.height}×{self.width} only. "
                f"Export it for that size: export/to_onnx.py --imgsz {height} {width}"
            )
        return dataclasses.replace(self, height=height, width=width)

    @property
    def only_size(self) -> tuple[int, int] | None:
        """The only input size `(H, W)`, or None when there are others."""
        return (self.height, self.width) if self.fixed else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model folder whose manifest was read and whose files were found.

    Attributes:
        path: The folder.
        name: The model's name.
        license: SPDX expression of the weights' licence.
        sources: Where the weights come from: one mapping each, with `name`, `license`, `sha256`, ….
        input: The sizes the image encoder takes.
        grid: Cells `(h, w)` of the output grid at the nominal input size.
        embedding_dim: Width D of the embeddings.
        templates: Prompts a class name is put into, each with one ``{}``.
        precision: Storage precision of the weights, e.g. ``"fp16"``.
        verification: Report of the export's check against the source; see ``export/verify.py``.
        files: Relative path → ``{"size": bytes, "sha256": hex}``.
        schema_version: Version of the manifest's layout.
    """

    path: Path
    name: str
    license: str
    sources: tuple[Mapping[str, Any], ...]
    input: InputSpec
    grid: tuple[int, int]
    embedding_dim: int
    templates: tuple[str, ...]
    precision: str
    verification: Mapping[str, Any]
    files: Mapping[str, Mapping[str, Any]]
    schema_version: int = SCHEMA_VERSION

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Bundle":
        """Read a bundle's manifest and check that its files are there, at their sizes.

        Hashes are checked later, by `file` for each file in use and by `verify` for all. Nothing is written.

        Raises:
            BundleError: There is no manifest or it cannot be read, its schema is newer than this
                library's, a key is missing or unknown, a listed file is missing or of another size.
        """
        folder = Path(path)
        manifest = folder / MANIFEST
        if not is_file(manifest):
            if folder.name and is_file(set_aside(folder) / MANIFEST):
                raise BundleError(
                    f"{folder} is missing: an export was killed while it replaced the bundle. The old one is "
                    f"in {set_aside(folder)}. Run the export again, or rename that folder to {folder.name}."
                )
            raise BundleError(
                f"{folder} is not a bundle: it has no {MANIFEST}. Expected a folder made by export/to_onnx.py"
            )
        try:
            fields = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(
                f"{manifest} cannot be read: {error}. Export or copy the bundle again."
            ) from error
        bundle = cls(path=folder, **_checked_fields(fields, manifest))
        for name, entry in bundle.files.items():
            bundle._check_presence(name, entry["size"])
        if IMAGE_ENCODER not in bundle.files:
            raise BundleError(f"{manifest} lists no {IMAGE_ENCODER}; a bundle needs one. Export it again.")
        return bundle

    def manifest(self) -> dict[str, Any]:
        """The content of ``bundle.json``, as JSON-ready values."""
        fields = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "path"
        }
        fields["input"] = dataclasses.asdict(self.input)
        return {"schema_version": fields.pop("schema_version"), **fields}

    def to_json(self) -> str:
        """The content of ``bundle.json``."""
        return json.dumps(self.manifest(), indent=1, ensure_ascii=False) + "\n"

    def file(self, name: str) -> Path:
        """Path of a file of the bundle whose content has just been checked.

        Args:
            name: Relative path as listed in `files`.

        Raises:
            BundleError: The bundle has no such file, or its content is not the one that was exported.
        """
        if name not in self.files:
            raise BundleError(f"bundle {self.name!r} has no {name}; it has {', '.join(sorted(self.files))}")
        path = self.path / name
        try:
            found = sha256(path)
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}") from error
        expected = self.files[name]["sha256"]
        if found != expected:
            raise BundleError(
                f"{path} was changed or damaged: its SHA-256 is {found[:12]}…, "
                f"{MANIFEST} says {expected[:12]}…. "
                "Copy or export the bundle again."
            )
        return path

    def verify(self) -> None:
        """Check the hash of every file.

        Raises:
            BundleError: A file's content is not the one that was exported.
        """
        for name in self.files:
            self.file(name)

    @property
    def size(self) -> int:
        """Bytes of all listed files together."""
        return sum(int(entry["size"]) for entry in self.files.values())

    @property
    def has_text_encoder(self) -> bool:
        """Whether new words can be embedded with this bundle alone."""
        return TEXT_ENCODER in self.files and TOKENIZER in self.files

    @property
    def text_hash(self) -> str:
        """SHA-256 of the text encoder, or empty: tells whether a saved vocabulary fits this model."""
        return str(self.files[TEXT_ENCODER]["sha256"]) if TEXT_ENCODER in self.files else ""

    @property
    def vocabularies(self) -> dict[str, str]:
        """Name → file (as in `files`) of every precomputed vocabulary, by name.

        A file is ``vocabularies/NAME.npz``, or ``vocabularies/NAME.2.npz`` where one replaced the other.
        """
        paths = [PurePosixPath(name) for name in self.files]
        found = {p.name.partition(".")[0]: str(p) for p in paths if p.match(f"{VOCABULARIES}/*.npz")}
        return dict(sorted(found.items()))

    def _check_presence(self, name: str, size: int) -> None:
        path = self.path / name
        if not is_file(path):
            raise BundleError(
                f"{path} is missing, though {MANIFEST} lists it. Copy or export the bundle again."
            )
        found = path.stat().st_size
        if found != size:
            raise BundleError(
                f"{path} has {found} bytes, {MANIFEST} says {size}: the copy is incomplete or was changed. "
                "Copy or export the bundle again."
            )


def misfit(size: tuple[int, int], multiple: int) -> str:
    """What is wrong with an input size `(H, W)`, with the nearest that fit; empty if nothing is."""
    problems = []
    for side, value in zip(("height", "width"), size, strict=True):
        if value <= 0 or multiple <= 0 or value % multiple:
            below = max(value // max(multiple, 1), 1) * multiple
            problems.append(
                f"{side} is {value}; expected a positive multiple of {multiple}, "
                f"for example {below} or {below + multiple}"
            )
    return ", and ".join(problems)


_TEMPLATE = re.compile(r"[^{}]*\{\}[^{}]*", re.DOTALL)
_Types = Mapping[str, type | tuple[type, ...]]
_INPUT_TYPES: _Types = {
    "height": int,
    "width": int,
    "multiple": int,
    "fixed": bool,
    "keep_aspect": bool,
    "batch": (int, type(None)),
}
_TYPES: _Types = {
    "schema_version": int,
    "name": str,
    "license": str,
    "sources": list,
    "input": dict,
    "grid": list,
    "embedding_dim": int,
    "templates": list,
    "precision": str,
    "verification": dict,
    "files": dict,
}


def _checked_fields(fields: Any, manifest: Path) -> dict[str, Any]:
    """The manifest's JSON as keyword arguments of Bundle, without `path`."""
    if not isinstance(fields, dict):
        raise BundleError(f"{manifest} holds a {type(fields).__name__}; expected an object")
    version = fields.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{manifest}: schema_version is {version!r}; expected {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{manifest} has schema version {version}; this pixelclip_sdk reads up to {SCHEMA_VERSION}. "
            "Upgrade pixelclip-sdk, or export the bundle with this version."
        )
    _check_types(fields, _TYPES, manifest, "")
    _check_types(fields["input"], _INPUT_TYPES, manifest, "input.")
    if fields["embedding_dim"] < 1:
        raise BundleError(f"{manifest}: embedding_dim is {fields['embedding_dim']}; expected at least 1")
    for name, entry in fields["files"].items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{manifest}: file {name!r} is outside the bundle; expected a path inside it")
        if not isinstance(entry, dict):
            raise BundleError(f"{manifest}: files.{name} is a {type(entry).__name__}; expected an object")
        _check_types(entry, {"size": int, "sha256": str}, manifest, f"files.{name}.")
    if not all(isinstance(text, str) and _TEMPLATE.fullmatch(text) for text in fields["templates"]):
        raise BundleError(
            f"{manifest}: templates are {fields['templates']}; expected texts with one {{}} each"
        )
    return {
        **fields,
        "input": InputSpec(**fields["input"]),
        "sources": tuple(fields["sources"]),
        "grid": _grid(fields["grid"], manifest),
        "templates": tuple(fields["templates"]),
    }


def _grid(sides: list[Any], manifest: Path) -> tuple[int, int]:
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise BundleError(f"{manifest}: grid is {sides}; expected two positive numbers, rows and columns")
    return sides[0], sides[1]


def _check_types(found: Mapping[str, Any], expected: _Types, manifest: Path, prefix: str) -> None:
    _check_keys(found, set(expected), manifest, prefix)
    for key, kinds in expected.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if type(found[key]) not in kinds:  # Exactly: True is an int to isinstance.
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise BundleError(
                f"{manifest}: {prefix}{key} is a {type(found[key]).__name__}; expected a {names}. "
                "Export the bundle again."
            )


def _check_keys(found: Mapping[str, Any], expected: set[str], manifest: Path, prefix: str) -> None:
    for key in found:
        if key not in expected:
            hint = did_you_mean(key, expected)
            raise BundleError(
                f"{manifest}: unknown key {prefix + key!r}.{hint} Expected: {', '.join(sorted(expected))}"
            )
    if missing := sorted(expected - found.keys()):
        raise BundleError(
            f"{manifest}: missing {', '.join(prefix + key for key in missing)}. Export the bundle again."
        )
