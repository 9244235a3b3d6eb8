"""Model names → encoders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pixelclip_sdk.bundle import misfit
from pixelclip_sdk.errors import BundleError
from pixelclip_sdk.support.files import sha256
from training.models import registry
from training.models.pair import EncoderPair
from training.models.registry import LITE, LITES
from training.models.weights.checkpoints import load_exactly, read_checkpoint

__all__ = ["build_pair"]

_LITE_STRIDE = 32


def build_pair(
    name: str, *, checkpoint: Path | None = None, imgsz: tuple[int, int] | None = None, offline: bool = False
) -> EncoderPair:
    """Both encoders of a model.

    Args:
        name: A name of `registry.names` or ``"open_clip:NAME/TAG"``. ``"pixelclip-lite"`` is the bundle that
            ships, ``"pixelclip-lite-start"`` what its fine-tuning began with.
        checkpoint: A file with weights to take instead of those that the name stands for; for
            pixelclip-lite, of its image encoder.
        imgsz: Input `(H, W)`; None for the model's own.
        offline: Do not ask the hub; take what is in its cache.

    Raises:
        ModelNotFoundError: There is no model of that name.
        CheckpointError: The weights cannot be had, or do not fit the model.
        BundleError: The model cannot take pictures of that size.
    """
    if imgsz is not None:
        _check_size(name, imgsz)
    if name not in LITES:
        from training.models.clip.build import build_clip

        return build_clip(name, checkpoint=checkpoint, imgsz=imgsz, offline=offline)
    from training.models.lite.build import build_lite

    pair = build_lite(imgsz=imgsz) if imgsz else build_lite()
    more: tuple[dict[str, Any], ...] = ()
    if checkpoint is not None:
        weights = read_checkpoint(checkpoint)
        load_exactly(pair.image, weights, source=checkpoint.name, what=f"{LITE}'s image encoder")
        more = ({"file": checkpoint.name, "license": "NOASSERTION", "sha256": sha256(checkpoint)},)
    elif name == LITE:
        from training.models.lite.shipped import shipped_ridge

        ridge, more = shipped_ridge()
        pair.image.ridge.load_state_dict(ridge)
    return dataclasses.replace(pair, name=name, sources=(*pair.sources, *more))


def _check_size(name: str, size: tuple[int, int]) -> None:
    """Refuse a size that does not fit before weights are downloaded."""
    if name.endswith(".json"):  # Its weights are on this machine; its towers know.
        return
    stride = _LITE_STRIDE if name in LITES else registry.find(name).stride
    if problem := misfit(size, stride):
        raise BundleError(f"{name} does not take this input size: {problem}")
