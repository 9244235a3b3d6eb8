"""Models to measure, exported when they are needed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch

from export.to_onnx import export_bundle
from pixelclip_sdk import Bundle, Segmenter, Vocabulary
from pixelclip_sdk.benchmark import SAMPLE_WORDS
from training.models.clip.build import build_clip
from training.models.pair import EncoderPair

VIT = "ViT-B-16-quickgelu"  # open_clip's name of OpenAI's ViT-B/16.
LITE_INT8_GATE = 0.7  # Lets `export_bundle` quantise all convolutions of pixelclip-lite.


def random_vit(layers: int = 12) -> EncoderPair:
    """Returns ViT-B/16 at 320² with seeded random weights: for speed and size, not for labels."""
    torch.manual_seed(0)
    config = open_clip.get_model_config(VIT)
    parts = {name: {**config[name], "layers": layers} for name in ("vision_cfg", "text_cfg")}
    return build_clip("vit", open_clip.create_model(VIT, pretrained=None, load_weights=False, **parts))


def exported(
    pair: EncoderPair, precision: str, folder: Path, photos: Sequence[Path], *, gate: float | None = None
) -> Bundle:
    """Returns a new bundle in `folder`. The first photo verifies it; the others calibrate int8."""
    path = folder / f"{pair.name}-{precision}"
    return export_bundle(
        pair, path, precision=precision, photos=photos[:1], calibration=photos[1:], gate=gate
    )


def lite_words() -> Vocabulary:
    """Returns 20 embedded words, without the text encoder's hash: those of exports differ by rounding."""
    with Segmenter.from_pretrained("pixelclip-lite", classes=SAMPLE_WORDS) as segmenter:
        words = segmenter.vocabulary
    return Vocabulary(names=words.names, embeddings=words.embeddings)


def grid_vocabulary(bundle: Bundle, jpeg: bytes, count: int) -> Vocabulary:
    """Returns embeddings of a photo's random grid cells: with random weights they give a label map."""
    with Segmenter.from_pretrained(bundle.path) as segmenter:
        features = segmenter.features(jpeg)
    cells = features.reshape(-1, features.shape[-1])
    chosen = cells[np.random.default_rng(0).choice(len(cells), count, replace=False)] - cells.mean(0)
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    return Vocabulary(names=[f"place {i}" for i in range(count)], embeddings=chosen)
