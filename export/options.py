"""Checks of the options of `to_onnx.py` that need no weights."""

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

DEFAULT_NAME = "classes"
"""Name of the vocabulary of classes that are typed on the command line."""
# Protocol buffers, and so ONNX files, hold 2 GiB; 16 MiB are left for the graph.
_MAX_WEIGHT_BYTES = (1 << 31) - (16 << 20)


def photos_to_verify_on(
    precision: str, photos: Sequence[Path], calibration: Sequence[Path]
) -> Sequence[Path]:
    """The photos that are not among the calibration photos, compared by content.

    Raises:
        VerificationError: No photo is left.
        PixelClipError: ``"int8"`` has no calibration photos.
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
    """Check that the encoders of a model fit into ONNX files.

    Raises:
        PixelClipError: An encoder is too large.
        ModelNotFoundError: No model has this name.
    """
    if name in LITES or name.endswith(".json"):
        return
    for tower, size in weight_bytes(name).items():
        if size > _MAX_WEIGHT_BYTES:
            raise PixelClipError(
                f"the {tower} encoder of {name} has {size / 1e9:.1f} GB of fp32 weights, and every export "
                f"starts in fp32; an ONNX file holds {_MAX_WEIGHT_BYTES / 1e9:.1f} GB. Take a smaller model: "
                "ViT-L-14 and convnext_large_d are the largest that fit."
            )


def vocabularies(texts: Sequence[str], name: str | None) -> dict[str, Classes]:
    """Vocabulary name → classes, from the options --classes and --name.

    Raises:
        VocabularyError: The classes cannot be read, or a name is invalid or used twice.
    """
    if name is not None and len(texts) != 1:
        raise VocabularyError(
            f"--name {name} works with one --classes, but there are {len(texts)}; put the classes into "
            "files: their names are used"
        )
    result: dict[str, Classes] = {}
    for text in texts:
        key, words = named_classes(text, name, default=DEFAULT_NAME)
        if key in result:
            raise VocabularyError(
                f"two vocabularies would be named {key!r}; put the classes into files: their names are used"
            )
        check_name(key)
        result[key] = parse_classes(words)  # Now, since otherwise it would fail after the whole export.
    return result
