"""What fine-tuning moved in pixelclip-lite, read back from the bundle that ships: it is nowhere else."""

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
    """The ridge map of the bundle that ships (docs/adr/0009), as its graph computes with it.

    It is stored in int8 with a scale a row; stored so again it is the same to the byte.

    Returns:
        State of `LiteImageEncoder.ridge`: ``weight`` float32 `[384, 1280]`, ``bias`` float32 `[384]`; and
        the bundle's sources beyond the packages.

    Raises:
        BundleError: The bundle that ships is damaged.
        BackendUnavailableError: onnx is not installed.
    """
    onnx, numpy_helper = imported("onnx"), imported("onnx.numpy_helper")
    bundle = Bundle.open(BUNDLED / LITE)
    graph = onnx.load(bundle.file(IMAGE_ENCODER)).graph
    stored = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    weight = stored["ridge.int8"] * stored["ridge.scale.fp16"].astype(np.float32)
    # The graph's is for the sum of a cell and its surroundings, not their mean (export/graph/lean_lite.py).
    state = {"weight": torch.from_numpy(weight.T / (1 - NEIGHBOURS))}
    state["bias"] = torch.from_numpy(stored["ridge_bias"].copy())
    return state, tuple(source for source in bundle.sources if "package" not in source)
