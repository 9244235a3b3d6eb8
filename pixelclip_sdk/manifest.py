"""The manifest of a bundle, ``bundle.json``: reading and checking.

A bundle may come from anywhere, so every key, type and number is checked before it is used.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pixelclip_sdk.errors import BundleError
from pixelclip_sdk.support.hints import did_you_mean
from pixelclip_sdk.support.json_files import read_json

MANIFEST = "bundle.json"
SCHEMA_VERSION = 1

_MAX_BYTES = 16 << 20
_SIDE = range(1, (1 << 16) + 1)
_TEMPLATE = re.compile(r"[^{}]*\{\}[^{}]*", re.DOTALL)

_Rules = Mapping[str, type | range]
"""Key → the type of its value, or the range of a whole number."""
_KEYS: _Rules = {
    **dict.fromkeys(("name", "license", "precision"), str),
    **dict.fromkeys(("sources", "grid", "templates"), list),
    **dict.fromkeys(("input", "verification", "files"), dict),
    **{"schema_version": int, "embedding_dim": range(1, 4097)},
}
_INPUT_KEYS: _Rules = {
    **dict.fromkeys(("height", "width", "multiple", "batch"), _SIDE),
    **dict.fromkeys(("fixed", "keep_aspect"), bool),
}
_CONFIDENCE_KEYS: _Rules = {"temperature": float, "background_weight": float}
_FILE_KEYS: _Rules = {"size": range((1 << 40) + 1), "sha256": str}
_OPTIONAL = ("input.batch",)
# Keys that a manifest may leave out, with the values that they may have.
_CHOICES = {"refine": ("edges", "off")}


def read_manifest(manifest: Path) -> dict[str, Any]:
    """Read ``bundle.json`` and check every key, type and range; raise BundleError if one is wrong.

    Returns the fields of `pixelclip_sdk.bundle.Bundle` without `path`; ``input`` is a plain dict.
    """
    try:
        if (size := manifest.stat().st_size) > _MAX_BYTES:
            raise ValueError(f"it has {size} bytes; expected at most {_MAX_BYTES}")
        fields = read_json(manifest)
    except (OSError, ValueError) as error:
        raise BundleError(f"{manifest} cannot be read: {error}. Export or copy the bundle again.") from error
    if not isinstance(fields, dict):
        raise _wrong(manifest, f"it holds a {type(fields).__name__}; expected an object")
    version = fields.get("schema_version")
    if not isinstance(version, int) or version < 1:
        raise BundleError(f"{manifest}: schema_version is {version!r}; expected {SCHEMA_VERSION}")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{manifest} has schema version {version}; this pixelclip_sdk reads up to {SCHEMA_VERSION}. "
            "Upgrade pixelclip-sdk, or export the bundle with this version."
        )
    confidence = fields.pop("confidence", None)
    choices = {key: fields.pop(key) for key in _CHOICES if key in fields}
    for key, value in choices.items():
        if value not in _CHOICES[key]:
            expected = " or ".join(map(repr, _CHOICES[key]))
            raise _wrong(manifest, f"{key} is {str(value)[:60]!r}; expected {expected}")
    _check(fields, _KEYS, manifest, "")
    _check(fields["input"], _INPUT_KEYS, manifest, "input.")
    if confidence is not None:
        _check(confidence, _CONFIDENCE_KEYS, manifest, "confidence.")
        for key, value in confidence.items():
            if not 1e-6 <= value <= 1e6:  # Also refuses NaN.
                raise _wrong(manifest, f"confidence.{key} is {value}; expected 1e-6 to 1e6")
    for name, entry in fields["files"].items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise _wrong(manifest, f"file {name!r} is outside the bundle; expected a path inside it")
        _check(entry, _FILE_KEYS, manifest, f"files.{name}.")
    grid = fields["grid"]
    if len(grid) != 2 or not all(type(side) is int and side in _SIDE for side in grid):
        raise _wrong(manifest, f"grid is {str(grid)[:60]}; expected rows and columns, 1 to {_SIDE[-1]}")
    if not all(isinstance(text, str) and _TEMPLATE.fullmatch(text) for text in fields["templates"]):
        raise _wrong(manifest, f"templates are {fields['templates']}; expected texts with one {{}} each")
    return {
        **fields,
        **choices,
        "confidence": confidence,
        "sources": tuple(fields["sources"]),
        "grid": tuple(grid),
        "templates": tuple(fields["templates"]),
    }


def frozen(value: Any) -> Any:
    """Return JSON values as read-only mappings and tuples."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: frozen(item) for key, item in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def _check(found: Any, rules: _Rules, manifest: Path, prefix: str) -> None:
    """Check the keys and values of an object of the manifest, found at `prefix`, e.g. ``"input."``."""
    if not isinstance(found, dict):
        raise _wrong(manifest, f"{prefix.removesuffix('.')} is a {type(found).__name__}; expected an object")
    for key in found:
        if key not in rules:
            known = f"{did_you_mean(key, rules)} Expected: {', '.join(sorted(rules))}"
            raise _wrong(manifest, f"unknown key {prefix + key!r}.{known}")
    if missing := sorted(rules.keys() - found.keys()):
        raise _wrong(manifest, f"missing {', '.join(prefix + key for key in missing)}")
    for key, rule in rules.items():
        value, name = found[key], prefix + key
        if value is None and name in _OPTIONAL:
            continue
        kind: Any = int if isinstance(rule, range) else rule
        if type(value) is not kind:  # Not isinstance: True is an int.
            problem = f"a {type(value).__name__}; expected a {kind.__name__}"
            problem += " or null" if name in _OPTIONAL else ""
        elif isinstance(rule, range) and value not in rule:
            shown = value if abs(value) < 1 << 63 else "a huge number"
            problem = f"{shown}; expected {rule[0]} to {rule[-1]}"
        else:
            continue
        raise _wrong(manifest, f"{name} is {problem}")


def _wrong(manifest: Path, problem: str) -> BundleError:
    return BundleError(f"{manifest}: {problem}. Export the bundle again.")
