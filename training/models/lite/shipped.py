"""Reads the fine-tuned weights of pixelclip-lite from the bundled model, the only copy of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelclip_sdk.bundle import IMAGE_ENCODER, Bundle
from pixelclip_sdk.models import BUNDLED
from pixelclip_sdk.support.packages import imported
from training.models.lite.build import NEIGHBOURS
from training.models.registry import LITE

__all__ = ["shipped_ridge"]


def shipped_ridge() -> tuple[dict[str, Tensor], tuple[dict[str, Any], ...]]:
    """Reads the state of `LiteImageEncoder.ridge` and the bundle's sources that are not packages.

    The map is stored in int8 with one scale per row (docs/adr/0009). Quantising the returned float32 weights
    gives the same bytes.
    """
    onnx, numpy_helper = imported("onnx"), imported("onnx.numpy_helper")
    bundle = Bundle.open(BUNDLED / LITE)
    graph = onnx.load(bundle.file(IMAGE_ENCODER)).graph
    stored = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    weight = stored["ridge.int8"] * stored["ridge.scale.fp16"].astype(np.float32)
    # The graph applies the map before the factor 1 - NEIGHBOURS (export/graph/lean_lite.py).
    state = {"weight": torch.from_numpy(weight.T / (1 - NEIGHBOURS))}
    state["bias"] = torch.from_numpy(stored["ridge_bias"].copy())
    return state, tuple(dict(source) for source in bundle.sources if "package" not in source)
