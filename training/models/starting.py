"""The encoders that a training run starts from, with the weights to write in the end."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from pixelclip_sdk.errors import CheckpointError
from training.models import registry
from training.models.build import build_pair
from training.models.clip.build import configured_model, empty_model, pair_of
from training.models.pair import EncoderPair
from training.models.weights import hub
from training.models.weights.checkpoints import load_into, read_checkpoint

__all__ = ["starting_model"]


def starting_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    random_weights: bool = False,
    seed: int = 0,
    offline: bool = False,
) -> tuple[EncoderPair, nn.Module]:
    """A model to fine-tune.

    Args:
        name: As `build_pair` takes it; or a ``.json`` file with an open_clip configuration (embed_dim,
            vision_cfg, text_cfg, quick_gelu), for models of one's own.
        checkpoint: Weights to start from; None for those the name stands for.
        random_weights: Start from random weights. pixelclip-lite has none.
        seed: Of the random weights.
        offline: Do not ask the hub.

    Returns:
        The encoders, and the module whose state dict ``export/to_onnx.py --checkpoint`` takes for the same
        name. Parameters are shared.

    Raises:
        ModelNotFoundError: There is no model of that name.
        CheckpointError: The weights cannot be had or do not fit, or there are none.
    """
    if name in registry.LITES:
        pair = build_pair(name, checkpoint=checkpoint, offline=offline)
        return pair, pair.image
    spec = None if name.endswith(".json") else registry.find(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec is None:
            model, family = configured_model(Path(name))
        else:
            model, family = empty_model(spec), spec.family
            if checkpoint is None and not random_weights:
                checkpoint = hub.fetch(spec.repository, *spec.files, offline=offline).path
    if checkpoint is not None:
        load_into(model, read_checkpoint(checkpoint), source=checkpoint.name)
    elif not random_weights:
        raise CheckpointError(
            f"{name} has no weights of its own: give a checkpoint (train.py: checkpoint=FILE or "
            "random_weights=true; others: --checkpoint FILE)"
        )
    return pair_of(name, model, family=family, spec=spec), model
