"""Weights of pixelclip-lite besides its packages: in a checkpoint, and in the bundled model.

A checkpoint has the image encoder under its own names and, if the model was aligned with words, the text
encoder's anchors under `text.`. The bundled model is the only copy of what ships.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelclip_sdk.bundle import IMAGE_ENCODER, TEXT_ENCODER, Bundle
from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.models import BUNDLED
from pixelclip_sdk.support.packages import imported
from training.models.lite.build import NEIGHBOURS, TEMPLATES, LiteTextEncoder
from training.models.pair import EncoderPair
from training.models.registry import LITE
from training.models.runtime import embed_texts
from training.models.weights.checkpoints import load_exactly

__all__ = ["load_shipped", "load_weights", "shipped_maps", "weights_of"]

_PHOTO_WORDS = Path(__file__).with_name("photo_words.txt")
_TEXT = "text."


def weights_of(pair: EncoderPair) -> dict[str, Tensor]:
    """Returns the content of a checkpoint: the image encoder's state and the text encoder's anchors."""
    state = pair.image.state_dict() | {
        f"{_TEXT}{name}": getattr(pair.text, name).detach() for name in LiteTextEncoder.ANCHORS
    }
    return {name: tensor.contiguous() for name, tensor in state.items()}


def load_weights(pair: EncoderPair, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Loads a checkpoint into a pixelclip-lite; without anchors in it, those of the model stay.

    Raises:
        CheckpointError: The checkpoint is of another model or damaged. The model is unchanged.
    """
    text = {name: tensor for name, tensor in weights.items() if name.startswith(_TEXT)}
    image = {name: tensor for name, tensor in weights.items() if name not in text}
    anchors = [text.get(f"{_TEXT}{name}") for name in LiteTextEncoder.ANCHORS]
    if text and (
        len(text) != len(anchors)
        or any(a is None or a.ndim != 2 or a.shape[1] != pair.dim or not a.isfinite().all() for a in anchors)
        or len({len(a) for a in anchors if a is not None}) != 1
    ):
        raise CheckpointError(
            f"{source} has the tensors {', '.join(text)}; expected text.anchors and text.places, both "
            f"[anchors, {pair.dim}] and finite, or none under {_TEXT}"
        )
    load_exactly(pair.image, image, source=source, what=f"{LITE}'s image encoder")
    if text:
        pair.text.set_anchors(*anchors)


def load_shipped(pair: EncoderPair) -> tuple[dict[str, Any], ...]:
    """Loads what the bundle has besides its packages, and returns its sources that are not packages."""
    ridge, places, sources = shipped_maps()
    pair.image.ridge.load_state_dict(ridge)
    words = _PHOTO_WORDS.read_text(encoding="utf-8").split("\n")[:-1]
    sentences = [TEMPLATES[0].format(word) for word in words]
    with torch.no_grad():
        anchors = embed_texts(pair.text.tower, pair.tokenizer, pair.text_inputs, sentences)
    pair.text.add_anchors(anchors, places[-len(words) :])
    return sources


def shipped_maps() -> tuple[dict[str, Tensor], Tensor, tuple[dict[str, Any], ...]]:
    """Reads the state of `LiteImageEncoder.ridge`, the anchors' places and the sources that are not packages.

    They are stored in int8 with one scale per row (docs/adr/0009). Quantising the returned float32 weights
    gives the same bytes.
    """
    bundle = Bundle.open(BUNDLED / LITE)
    image, text = (_stored(bundle.file(name)) for name in (IMAGE_ENCODER, TEXT_ENCODER))
    # The graph applies the map before the factor 1 - NEIGHBOURS (export/graph/lean_lite.py).
    state = {"weight": torch.from_numpy(_expanded(image, "ridge").T / (1 - NEIGHBOURS))}
    state["bias"] = torch.from_numpy(image["ridge_bias"].copy())
    places = torch.from_numpy(_expanded(text, "places"))
    return state, places, tuple(dict(source) for source in bundle.sources if "package" not in source)


def _stored(graph: Path) -> dict[str, np.ndarray]:
    onnx, numpy_helper = imported("onnx"), imported("onnx.numpy_helper")
    return {weight.name: numpy_helper.to_array(weight) for weight in onnx.load(graph).graph.initializer}


def _expanded(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return stored[f"{name}.int8"] * stored[f"{name}.scale.fp16"].astype(np.float32)
