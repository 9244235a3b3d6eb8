"""Packages that only some commands need: found by name, with what to install where one is missing."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import BackendUnavailableError

__all__ = ["folder_of", "imported"]

_EXTRA = '"pixelclip-sdk[train]"'


def imported(module: str, package: str = _EXTRA) -> Any:
    """Imports a module.

    Args:
        module: Its dotted name.
        package: What pip installs it with.

    Raises:
        BackendUnavailableError: It is not installed, or is broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(
            f"{module} cannot be imported ({error}). Install it: pip install {package}"
        ) from error


def folder_of(module: str, package: str = _EXTRA) -> Path:
    """Where a module's files are; it is not imported.

    Args:
        module: Its name.
        package: What pip installs it with.

    Raises:
        BackendUnavailableError: It is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailableError(f"{module} is not installed. Install it: pip install {package}")
    return Path(spec.submodule_search_locations[0])
