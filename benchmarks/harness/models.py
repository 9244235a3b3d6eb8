"""Models to measure, exported on first use."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch

from export.to_onnx import export_bundle
from pixelclip_sdk import Bundle, Vocabulary
from training.models.clip.build import build_clip
from training.models.pair import EncoderPair

__all__ = ["LITE_INT8_GATE", "VIT", "cached_bundle", "grid_vocabulary", "random_vit"]

VIT = "ViT-B-16-quickgelu"
"""open_clip's name of OpenAI's ViT-B/16."""

LITE_INT8_GATE = 0.7
"""Gate that lets `export_bundle` quantise all convolutions of pixelclip-lite; see docs/pixelclip-lite.md."""


def random_vit() -> EncoderPair:
    """Returns ViT-B/16 at 320² with seeded random weights: for speed and size, not for labels."""
    torch.manual_seed(0)
    return build_clip("vit", open_clip.create_model(VIT, pretrained=None, load_weights=False))


def cached_bundle(
    pair: EncoderPair, precision: str, folder: Path, photos: Sequence[Path], *, gate: float | None = None
) -> Bundle:
    """Returns a model's bundle in `folder`, exported unless it exists.

    Args:
        pair: The model.
        precision: One of `export.to_onnx.GATES`.
        folder: Folder of bundles.
        photos: The first one verifies the export; the others calibrate int8.
        gate: See `export_bundle`.
    """
    path = folder / f"{pair.name}-{precision}"
    if (path / "bundle.json").is_file():
        return Bundle.open(path)
    return export_bundle(
        pair, path, precision=precision, photos=photos[:1], calibration=photos[1:], gate=gate
    )


def grid_vocabulary(features: np.ndarray, count: int) -> Vocabulary:
    """Returns embeddings of random grid cells, so that random weights give a label map with regions.

    Args:
        features: Dense features of a photo, `(h, w, D)` float32.
        count: Number of classes.
    """
    cells = features.reshape(-1, features.shape[-1])
    chosen = cells[np.random.default_rng(0).choice(len(cells), count, replace=False)] - cells.mean(0)
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    return Vocabulary(names=[f"place {i}" for i in range(count)], embeddings=chosen)
