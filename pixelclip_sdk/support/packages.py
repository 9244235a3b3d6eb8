"""Find and import optional packages; an error names the package to install."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from pixelclip_sdk.errors import BackendUnavailableError

# The code that needs these packages is not in the wheel, only in a checkout of the repository.
_EXTRA = '-e ".[train]"'


def imported(module: str, package: str = _EXTRA) -> Any:
    """Import a module that ``pip install PACKAGE`` provides; raises BackendUnavailableError if it fails."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(
            f"{module} cannot be imported ({error}). Install it: pip install {package}"
        ) from error


def folder_of(module: str, package: str = _EXTRA) -> Path:
    """Return the folder of a package without importing it; see `imported`."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailableError(f"{module} is not installed. Install it: pip install {package}")
    return Path(spec.submodule_search_locations[0])
