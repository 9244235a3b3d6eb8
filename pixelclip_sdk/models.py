"""Model names → bundles on this machine. Nothing here goes to the network."""

import contextlib
import logging
import os
from pathlib import Path

from pixelclip_sdk.bundle import MANIFEST, Bundle
from pixelclip_sdk.errors import ModelNotFoundError
from pixelclip_sdk.support.files import is_file, is_folder, restore
from pixelclip_sdk.support.hints import did_you_mean

__all__ = ["BUNDLED", "available_models", "cache_folder", "find_bundle"]

_log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "assets"
"""The folder of the bundles that come with the SDK."""


def cache_folder() -> Path:
    """The user's folder of bundles: ``$PIXELCLIP_HOME``, or ``~/.cache/pixelclip``."""
    # Not Path.home(), which raises for a user without one, as services and containers have.
    home = os.path.expanduser("~")  # noqa: PTH111
    return Path(os.environ.get("PIXELCLIP_HOME") or Path(home, ".cache", "pixelclip"))


def available_models() -> dict[str, Path]:
    """Name → folder of every bundle that can be named; the user's own hide bundled ones of the same name."""
    models = {}
    for root in (BUNDLED, cache_folder()):
        with contextlib.suppress(OSError):  # A cache that cannot be read: the bundled models need none.
            found = sorted(manifest.parent for manifest in root.glob(f"*/{MANIFEST}"))
            models.update({folder.name: folder for folder in found if not folder.name.startswith(".")})
    return models


def find_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Open the bundle in a folder, or the one of that name.

    Args:
        name_or_path: ``"pixelclip-lite"``, the name of a folder in `cache_folder`, or a bundle's folder. A
            name wins over a folder here that is called so.

    Raises:
        ModelNotFoundError: It is neither.
        BundleError: The bundle cannot be used.
    """
    folder = Path(name_or_path)
    for place in (folder, cache_folder() / folder):
        restore(place, MANIFEST)
    models = available_models()
    if str(name_or_path) in models:
        if is_file(folder / MANIFEST):
            _log.warning("%s is the model of that name; for the folder here write ./%s", folder, folder)
        return Bundle.open(models[str(name_or_path)])
    if is_folder(folder):
        return Bundle.open(folder)
    hint = did_you_mean(str(name_or_path), models)
    raise ModelNotFoundError(
        f"no model {str(name_or_path)!r} on this machine.{hint} "
        f"Expected a bundle's folder or one of: {', '.join(sorted(models)) or 'none found'}. "
        f"Bundles in {cache_folder()} go by their folder's name."
    )
