"""Photos to verify an export on, and to calibrate it with."""

import importlib.util
from pathlib import Path

from pixelclip_sdk import PixelClipError

__all__ = ["default_photos", "pictures"]

_ROOT = Path(__file__).resolve().parents[1]
_SUFFIXES = (".jpg", ".jpeg", ".png")
# Colour photos in packages that the extra `export` installs, beside those in the repository.
_IN_PACKAGES = {
    "skimage": ("data/astronaut.png", "data/motorcycle_left.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def default_photos() -> list[Path]:
    """Real photos that are on every machine that exports: ours, scikit-image's and scikit-learn's."""
    found = pictures("examples", _ROOT / "examples" / "photos")
    for package, files in _IN_PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            places = [Path(spec.origin).parent / file for file in files]
            found += [place for place in places if place.is_file()]
    return found


def pictures(option: str, folder: Path | None) -> list[Path]:
    """The photos in a folder, by name; of no folder, none.

    Raises:
        PixelClipError: It is no folder, or has no photos; the message names the option.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise PixelClipError(f"{option}: {folder} is no folder; expected one with JPEG or PNG photos")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not found:
        raise PixelClipError(f"{option}: there are no photos in {folder}; expected JPEG or PNG files")
    return found
