"""The manifest of a bundle, ``bundle.json``: reading and checking.

A bundle may come from anywhere, so every key, type and number is checked before it is used.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pixelclip_sdk.errors import BundleError
from pixelclip_sdk.support.hints import did_you_mean

__all__ = ["MANIFEST", "SCHEMA_VERSION", "frozen", "read_manifest", "thawed"]

MANIFEST = "bundle.json"
SCHEMA_VERSION = 1

_MAX_BYTES = 16 << 20
_MAX_PIXELS = 1 << 16
_MAX_WIDTH = 4096
_MAX_FILE_SIZE = 1 << 40

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


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Read and check ``bundle.json``.

    Returns:
        The fields of `pixelclip_sdk.bundle.Bundle` without `path`; ``input`` is a plain dict.

    Raises:
        BundleError: The file cannot be read, has a newer schema, lacks a key or has an unknown one, or a
            value has the wrong type or is out of range.
    """
    try:
        if (size := manifest.stat().st_size) > _MAX_BYTES:
            raise ValueError(f"it has {size} bytes; expected at most {_MAX_BYTES}")
        fields = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{manifest} cannot be read: {error}. Export or copy the bundle again.") from error
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
    _check_range(fields["embedding_dim"], 1, _MAX_WIDTH, manifest, "embedding_dim")
    for key in ("height", "width", "multiple", "batch"):
        if (value := fields["input"][key]) is not None:
            _check_range(value, 1, _MAX_PIXELS, manifest, f"input.{key}")
    for name, entry in fields["files"].items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{manifest}: file {name!r} is outside the bundle; expected a path inside it")
        if not isinstance(entry, dict):
            raise BundleError(f"{manifest}: files.{name} is a {type(entry).__name__}; expected an object")
        _check_types(entry, {"size": int, "sha256": str}, manifest, f"files.{name}.")
        _check_range(entry["size"], 0, _MAX_FILE_SIZE, manifest, f"files.{name}.size")
    if not all(isinstance(text, str) and _TEMPLATE.fullmatch(text) for text in fields["templates"]):
        raise BundleError(
            f"{manifest}: templates are {fields['templates']}; expected texts with one {{}} each"
        )
    return {
        **fields,
        "sources": tuple(fields["sources"]),
        "grid": _grid(fields["grid"], manifest),
        "templates": tuple(fields["templates"]),
    }


def frozen(value: Any) -> Any:
    """Return JSON values as read-only mappings and tuples."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(item) for key, item in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def thawed(value: Any) -> Any:
    """Return JSON values as dicts and lists: the reverse of `frozen`."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    return list(map(thawed, value)) if isinstance(value, list | tuple) else value


def _grid(sides: list[Any], manifest: Path) -> tuple[int, int]:
    if len(sides) != 2 or not all(type(side) is int and 0 < side <= _MAX_PIXELS for side in sides):
        raise BundleError(
            f"{manifest}: grid is {str(sides)[:60]}; expected rows and columns, from 1 to {_MAX_PIXELS}"
        )
    return sides[0], sides[1]


def _check_range(value: int, least: int, most: int, manifest: Path, name: str) -> None:
    if not least <= value <= most:
        found = value if abs(value) <= _MAX_FILE_SIZE else "a huge number"
        raise BundleError(
            f"{manifest}: {name} is {found}; expected {least} to {most}. Export the bundle again."
        )


def _check_types(found: Mapping[str, Any], expected: _Types, manifest: Path, prefix: str) -> None:
    _check_keys(found, set(expected), manifest, prefix)
    for key, kinds in expected.items():
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        if type(found[key]) not in kinds:  # Not isinstance: True is an int.
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
