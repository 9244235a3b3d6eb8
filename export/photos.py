"""Photos to verify an export on, and to calibrate it with."""

import importlib.util
from pathlib import Path

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.images import find_images

__all__ = ["default_photos", "photos_in"]

_OWN = Path(__file__).resolve().parents[1] / "examples" / "photos"
# Colour photos inside packages that the extra `export` installs.
_IN_PACKAGES = {
    "skimage": ("data/astronaut.png", "data/motorcycle_left.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def default_photos() -> list[Path]:
    """Real photos from this repository, scikit-image and scikit-learn."""
    photos = find_images(_OWN)
    for package, files in _IN_PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            photos += [path for file in files if (path := Path(spec.origin).parent / file).is_file()]
    return photos


def photos_in(option: str, folder: Path | None) -> list[Path]:
    """The photos in the folder that a command-line option names; empty if the option is not given.

    Raises:
        PixelClipError: The folder does not exist or has no photos; the message starts with the option.
    """
    try:
        return [] if folder is None else find_images(folder)
    except ImageError as error:
        raise PixelClipError(f"{option}: {error}") from error
