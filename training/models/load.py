"""Loads a model by name: the one way into the encoders for training, evaluation, export and benchmarks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from pixelclip_sdk.bundle import misfit
from pixelclip_sdk.errors import BundleError, CheckpointError
from pixelclip_sdk.support.files import sha256
from training.models import registry
from training.models.pair import EncoderPair
from training.models.registry import LITE, LITES
from training.models.weights import hub
from training.models.weights.checkpoints import load_exactly, load_into, read_checkpoint

__all__ = ["load_model"]

_LITE_STRIDE = 32


def load_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    input_size: tuple[int, int] | None = None,
    random_weights: bool = False,
    seed: int = 0,
    offline: bool = False,
) -> EncoderPair:
    """Loads the image and text encoders of a model, on the CPU.

    Args:
        name: A name from `registry.names()`, ``"open_clip:NAME/TAG"``, or a ``.json`` file with an open_clip
            configuration (embed_dim, vision_cfg, text_cfg, quick_gelu). ``"pixelclip-lite"`` is the bundled
            model, ``"pixelclip-lite-start"`` the model its fine-tuning started from.
        checkpoint: File to read the weights from; None for the weights of the named model. For
            pixelclip-lite it holds the image encoder only.
        input_size: Input `(H, W)` in pixels; None for the model's default.
        random_weights: Initialise a CLIP with random weights if no checkpoint is given.
        seed: Seed of the random weights.
        offline: Use the local download cache only.

    Raises:
        ModelNotFoundError: No model has this name.
        CheckpointError: The weights cannot be downloaded or read, or do not fit the model.
        BundleError: The model cannot run at this input size.

    Example:
        >>> pair = load_model("clip-vit-b16", input_size=(320, 320))  # doctest: +SKIP
        >>> logits, features = pair.image(image, text)  # doctest: +SKIP
    """
    if name in LITES:
        if random_weights:
            raise CheckpointError(f"{name} cannot start from random weights; it is built from two packages")
        return _load_lite(name, checkpoint, input_size)
    if not name.endswith(".json"):
        spec = registry.find(name)
        _check_size(name, input_size, spec.stride)  # before any download
        return _load_clip(name, spec, checkpoint, input_size, random_weights, seed, offline)
    return _load_clip(name, None, checkpoint, input_size, random_weights, seed, offline)


def _load_clip(
    name: str,
    spec: registry.Spec | None,
    checkpoint: Path | None,
    input_size: tuple[int, int] | None,
    random_weights: bool,
    seed: int,
    offline: bool,
) -> EncoderPair:
    from training.models.clip.build import build_clip, configured_model, empty_model

    source: dict[str, str] = {}
    if checkpoint is not None:
        # The licence of a user's file is unknown.
        source = {"file": checkpoint.name, "license": "NOASSERTION"}
    elif spec is not None and not random_weights:
        file = hub.fetch(
            spec.repository, *spec.files, revision=spec.revision, sha256=spec.sha256, offline=offline
        )
        checkpoint = file.path
        source = {key: value for key, value in dataclasses.asdict(file).items() if key != "path"}
        source["license"] = spec.license
    elif not random_weights:
        raise CheckpointError(
            f"{name} has no weights of its own: give a checkpoint (train.py: checkpoint=FILE or "
            "random_weights=true; other commands: --checkpoint FILE)"
        )
    weights = read_checkpoint(checkpoint) if checkpoint is not None else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = configured_model(Path(name)) if spec is None else empty_model(spec)
    if checkpoint is not None and weights is not None:
        source.setdefault("sha256", sha256(checkpoint))
        load_into(model, weights, source=checkpoint.name)
    return build_clip(
        # The name ends up in bundles and engine files, so the folder of a configuration file is dropped.
        name if spec is not None else Path(name).stem,
        model,
        spec=spec,
        input_size=input_size,
        license=source.get("license", "NOASSERTION"),
        sources=(source,) if source else (),
    )


def _load_lite(name: str, checkpoint: Path | None, input_size: tuple[int, int] | None) -> EncoderPair:
    from training.models.lite.build import build_lite

    _check_size(name, input_size, _LITE_STRIDE)
    pair = build_lite(input_size) if input_size else build_lite()
    sources = pair.sources
    if checkpoint is not None:
        weights = read_checkpoint(checkpoint)
        load_exactly(pair.image, weights, source=checkpoint.name, what=f"{LITE}'s image encoder")
        sources += ({"file": checkpoint.name, "license": "NOASSERTION", "sha256": sha256(checkpoint)},)
    elif name == LITE:
        from training.models.lite.shipped import shipped_ridge

        ridge, tuned_sources = shipped_ridge()
        pair.image.ridge.load_state_dict(ridge)
        sources += tuned_sources
    return dataclasses.replace(pair, name=name, sources=sources)


def _check_size(name: str, size: tuple[int, int] | None, stride: int) -> None:
    if size is not None and (problem := misfit(size, stride)):
        raise BundleError(f"{name} does not take this input size: {problem}")
