"""Options of `to_onnx.py` and `verify.py`: checks that need no weights, and photos."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from pixelclip_sdk import PixelClipError
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.images import find_images
from training.models.clip.build import weight_bytes
from training.models.registry import LITES

__all__ = ["check_gate", "check_weights", "default_photos", "photos_in", "photos_to_verify_on"]

# Protocol buffers, and so ONNX files, hold 2 GiB; 16 MiB are left for the graph.
_MAX_WEIGHT_BYTES = (1 << 31) - (16 << 20)
_PHOTOS = Path(__file__).resolve().parents[1] / "examples" / "photos"
# Colour photos inside packages that the extra `export` installs.
_PACKAGED_PHOTOS = {
    "skimage": ("data/astronaut.png", "data/motorcycle_left.png", "data/rocket.jpg"),
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
}


def default_photos() -> list[Path]:
    """Real photos from this repository, scikit-image and scikit-learn."""
    photos = find_images(_PHOTOS)
    for package, files in _PACKAGED_PHOTOS.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            photos += [path for file in files if (path := Path(spec.origin).parent / file).is_file()]
    return photos


def photos_in(option: str, folder: Path | None) -> list[Path]:
    """The photos in the folder that a command-line option names; empty if the option is not given."""
    try:
        return [] if folder is None else find_images(folder)
    except ImageError as error:
        raise PixelClipError(f"{option}: {error}") from error


def photos_to_verify_on(precision: str, photos: Sequence[Path], calibration: Sequence[Path]) -> list[Path]:
    """The photos that are not among the calibration photos, compared by content."""
    if precision == "int8" and not calibration:
        raise PixelClipError(
            "int8 needs photos to calibrate on: --calibration DIR with some dozen real photos"
        )
    calibrated = {sha256(photo) for photo in calibration}
    rest = [photo for photo in photos if sha256(photo) not in calibrated]
    if not rest:
        raise PixelClipError(
            "no photos to verify on; give --photos a folder of JPEG or PNG photos, not those of --calibration"
        )
    return rest


def check_gate(gate: float | None) -> None:
    """Raise PixelClipError if the value of --gate is not between 0 and 1; None stands for the default."""
    if gate is not None and not 0 <= gate <= 1:
        raise PixelClipError(f"--gate is {gate:g}; expected a share of the pixels, 0 to 1, e.g. 0.99")


def check_weights(name: str) -> None:
    """Raise PixelClipError if an encoder of a model does not fit into an ONNX file."""
    if name in LITES or name.endswith(".json"):
        return
    for tower, size in weight_bytes(name).items():
        if size > _MAX_WEIGHT_BYTES:
            raise PixelClipError(
                f"the {tower} encoder of {name} has {size / 1e9:.1f} GB of fp32 weights, and every export "
                f"starts in fp32; an ONNX file holds {_MAX_WEIGHT_BYTES / 1e9:.1f} GB. Take a smaller model: "
                "ViT-L-14 and convnext_large_d are the largest that fit."
            )
