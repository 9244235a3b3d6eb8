"""What the export commands are given, checked before any weights are fetched."""

from collections.abc import Sequence
from pathlib import Path

from export.embed_text import check_name, named_classes
from export.verify import VerificationError
from pixelclip_sdk import PixelClipError, VocabularyError
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.words.classes import Classes, parse_classes
from training.models.clip.build import weight_bytes
from training.models.registry import LITES

__all__ = ["DEFAULT_NAME", "check_weights", "photos_to_verify_on", "vocabularies"]

# What words typed on the command line are called in the bundle.
DEFAULT_NAME = "classes"
# Protocol buffers, and ONNX files with them, end at 2 GiB; the graph wants some of it.
_LARGEST_FILE = (1 << 31) - (16 << 20)


def photos_to_verify_on(
    precision: str, photos: Sequence[Path], calibration: Sequence[Path]
) -> Sequence[Path]:
    """The photos that were not calibrated on.

    Raises:
        VerificationError: There is none.
        PixelClipError: ``"int8"`` has no photos to calibrate on.
    """
    if precision == "int8" and not calibration:
        raise PixelClipError(
            "int8 needs photos to calibrate on: --calibration DIR with some dozen real photos"
        )
    calibrated = {sha256(photo) for photo in calibration}
    rest = [photo for photo in photos if sha256(photo) not in calibrated]
    if not rest:
        raise VerificationError(
            "no photos to verify on; give --photos a folder of JPEG or PNG photos, not those of --calibration"
        )
    return rest


def check_weights(name: str) -> None:
    """Refuse a model whose encoders do not fit into ONNX files.

    Raises:
        PixelClipError: An encoder is too large.
        ModelNotFoundError: There is no model of that name.
    """
    if name in LITES or name.endswith(".json"):
        return
    for tower, size in weight_bytes(name).items():
        if size > _LARGEST_FILE:
            raise PixelClipError(
                f"the {tower} encoder of {name} has {size / 1e9:.1f} GB of weights in fp32, in which each "
                f"export starts; an ONNX file holds {_LARGEST_FILE / 1e9:.1f} GB. Take a smaller model: "
                "ViT-L-14 and convnext_large_d are the largest that fit."
            )


def vocabularies(given: Sequence[str], name: str | None) -> dict[str, Classes]:
    """What `--classes` and `--name` ask to embed: name → words.

    Raises:
        VocabularyError: The words cannot be read, or a name cannot be used or would be used twice.
    """
    if name is not None and len(given) != 1:
        raise VocabularyError(
            f"--name {name} goes with one --classes, but there are {len(given)}; put the words into files, "
            "whose names they get"
        )
    found: dict[str, Classes] = {}
    for text in given:
        key, words = named_classes(text, name, otherwise=DEFAULT_NAME)
        if key in found:
            raise VocabularyError(
                f"two vocabularies would be called {key!r}; put the words into files, whose names they get"
            )
        check_name(key)
        found[key] = parse_classes(words)  # Or it would fail when all is done but this.
    return found
