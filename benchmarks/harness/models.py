"""Models that benchmarks measure, exported on the spot and kept."""

from collections.abc import Sequence
from pathlib import Path

import open_clip
import torch

from export.to_onnx import export_bundle
from pixelclip_sdk import Bundle
from training.models.clip.build import build_clip
from training.models.pair import EncoderPair

__all__ = ["PHOTOS", "VIT", "bundle_of", "random_vit"]

PHOTOS = Path(__file__).resolve().parents[2] / "examples" / "photos"
VIT = "ViT-B-16-quickgelu"
"""open_clip's name of OpenAI's build of ViT-B/16."""


def random_vit() -> EncoderPair:
    """ViT-B/16 at 320² with seeded random weights, which show speed and nothing of labels."""
    torch.manual_seed(0)
    return build_clip("vit", open_clip.create_model(VIT, pretrained=None, load_weights=False))


def bundle_of(
    pair: EncoderPair, precision: str, folder: Path, photos: Sequence[Path], *, gate: float | None = None
) -> Bundle:
    """A model's bundle in `folder`; exported if it is not there yet.

    Args:
        pair: The model.
        precision: One of `export.to_onnx.GATES`.
        folder: Where bundles are kept.
        photos: The first is verified on; the others calibrate int8.
        gate: See `export_bundle`.
    """
    path = folder / f"{pair.name}-{precision}"
    if (path / "bundle.json").is_file():
        return Bundle.open(path)
    return export_bundle(
        pair, path, precision=precision, photos=photos[:1], calibration=photos[1:], gate=gate
    )
