"""Find and import optional packages; an error names the package to install."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import BackendUnavailableError

__all__ = ["folder_of", "imported"]

# In a checkout of the repository: what needs these packages is not in the wheel.
_EXTRA = '-e ".[train]"'


def imported(module: str, package: str = _EXTRA) -> Any:
    """Import a module.

    Args:
        module: Its dotted name.
        package: The argument of ``pip install`` that provides it.

    Raises:
        BackendUnavailableError: The module is not installed or is broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(
            f"{module} cannot be imported ({error}). Install it: pip install {package}"
        ) from error


def folder_of(module: str, package: str = _EXTRA) -> Path:
    """Return the folder of a package without importing it.

    Args:
        module: Its name.
        package: The argument of ``pip install`` that provides it.

    Raises:
        BackendUnavailableError: The package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailableError(f"{module} is not installed. Install it: pip install {package}")
    return Path(spec.submodule_search_locations[0])
