"""Several labelled data sets that are scored together, from a YAML file such as ``development.yaml``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import PixelClipError
from training.evaluation.datasets import Dataset, DatasetError, load_dataset
from training.support.yaml_files import parse_yaml

__all__ = ["load_sets"]

_KEYS = ("dataset", "folder", "split", "classes", "ignore")


def load_sets(file: Path, root: Path) -> dict[str, Dataset]:
    """Finds the photos and labels of all sets of a file, without reading them.

    Args:
        file: YAML: name → ``dataset`` and ``folder``, the latter below `root`, and if need be ``split``,
            ``classes`` and ``ignore`` as for `load_dataset`.
        root: Folder with the folders of all sets.

    Raises:
        DatasetError: The file cannot be read, or has something else.
        PixelClipError: A set cannot be used; the message has its name.
    """
    try:
        entries = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"data sets cannot be read from {file}: {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise DatasetError(f"{file} has no data sets; expected name: {{dataset: NAME, folder: PATH}}")
    return {str(name): _load(file, str(name), entry, root) for name, entry in entries.items()}


def _load(file: Path, name: str, entry: Any, root: Path) -> Dataset:
    if not isinstance(entry, dict) or not {"dataset", "folder"} <= set(entry) <= set(_KEYS):
        raise DatasetError(
            f"{file}: the set {name!r} is {entry!r}; expected dataset and folder, "
            f"and if need be {', '.join(_KEYS[2:])}"
        )
    ignore = entry.get("ignore", [])
    if not isinstance(ignore, list) or not all(isinstance(label, int) for label in ignore):
        raise DatasetError(f"{file}: ignore of {name!r} is {ignore!r}; expected a list of label ids")
    kind = str(entry["dataset"])
    try:
        data = load_dataset(
            kind,
            root / str(entry["folder"]),
            split=entry.get("split"),
            classes=entry.get("classes"),
            ignore=ignore,
        )
    except PixelClipError as error:
        raise type(error)(f"{file}: {name}: {error}") from error
    return dataclasses.replace(data, name=name) if kind == "folder" else data
