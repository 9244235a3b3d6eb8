"""Find the bundle of a model name on this machine. Nothing here uses the network."""

import contextlib
import logging
import os
from pathlib import Path

from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.catalogue import CATALOGUE
from pixelclip_sdk.errors import ModelNotFoundError
from pixelclip_sdk.manifest import MANIFEST
from pixelclip_sdk.support.files import cache_folder, is_file, is_folder, same, set_aside, user_path
from pixelclip_sdk.support.hints import did_you_mean

__all__ = ["BUNDLED", "available_models", "cache_folder", "find_bundle", "how_to_get"]

_log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "assets"
"""The folder of the bundles that are part of the SDK."""


def available_models() -> dict[str, Path]:
    """Name → folder of every model on this machine: the bundled ones and those in `cache_folder`.

    A bundled model cannot be replaced: a bundle of the same name in the cache is left out.

    Examples:
        >>> "pixelclip-lite" in available_models()
        True
    """
    models: dict[str, Path] = {}
    for place in (cache_folder(), BUNDLED):
        with contextlib.suppress(OSError):  # A cache that cannot be read does not affect the bundled models.
            folders = [manifest.parent for manifest in place.glob(f"*/{MANIFEST}")] if place else []
            models |= {folder.name: folder for folder in folders if not folder.name.startswith(".")}
    return dict(sorted(models.items()))


def find_bundle(name_or_path: str | os.PathLike[str]) -> Bundle:
    """Open the bundle of a model name, or the one in a folder. A name has precedence over a folder here.

    Raises:
        ModelNotFoundError: There is neither; the message says how to get a published model.
        BundleError: The bundle is damaged or incomplete.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ModelNotFoundError(f"the model is {name_or_path!r}; expected a name or the folder of a bundle")
    if not (name := os.fspath(name_or_path).strip()):
        raise ModelNotFoundError(
            f"the model's name is empty. On this machine: {', '.join(available_models())}"
        )
    folder = user_path(name_or_path)
    cache = cache_folder()
    models = available_models()
    if name in models:
        for other in (f"./{name}", *([str(cache / name)] if cache else [])):
            if is_file(Path(other, MANIFEST)) and not same(other, models[name]):
                _log.warning("%s is the model in %s; for the other one write %s", name, models[name], other)
        return Bundle.open(models[name])
    for place in (folder, *([cache / folder] if cache else [])):
        if is_folder(place) or (place.name and is_file(set_aside(place) / MANIFEST)):
            return Bundle.open(place)
    if name in CATALOGUE:
        raise ModelNotFoundError(f"the model {name} is not on this machine.\n{how_to_get(name)}")
    known = sorted({*models, *CATALOGUE})
    raise ModelNotFoundError(
        f"no model {name!r}.{did_you_mean(name, known)} Expected a bundle's folder or a name: on this "
        f"machine {', '.join(models)}; to download with `pixelclip pull NAME`: "
        f"{', '.join(other for other in CATALOGUE if other not in models)}."
    )


def how_to_get(name: str) -> str:
    """Instructions to download and convert a model of `CATALOGUE`, several lines."""
    model, cache = CATALOGUE[name], cache_folder()
    folder = cache / name if cache else Path(name)
    return (
        f"Get it, in a checkout of the PixelCLIP repository:\n"
        f'  pip install -e ".[export]"\n'
        f"  pixelclip pull {name}\n"
        f"This downloads {model.describe()}\n"
        f"and converts it to a bundle in {folder}; the same as\n"
        f"  python export/to_onnx.py --model {name} --out {folder}\n"
        f"If this machine cannot reach the hub, download the file elsewhere and add --checkpoint FILE to "
        f"either command, or copy a finished bundle to {folder}."
    )
