"""Loads a model by name: the one way into the encoders for training, evaluation, export and benchmarks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pixelclip_sdk.bundle import MANIFEST, misfit
from pixelclip_sdk.errors import BundleError, CheckpointError
from pixelclip_sdk.models import available_models, find_bundle
from pixelclip_sdk.support.files import sha256
from training.models import registry
from training.models.pair import EncoderPair
from training.models.registry import LITE, LITES
from training.models.weights import hub
from training.models.weights.checkpoints import load_exactly, load_into, read_checkpoint

if TYPE_CHECKING:
    from training.models.student import Student

__all__ = ["load_model", "load_teacher"]

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
        name: A name from `registry.names()`, ``"open_clip:NAME/TAG"``, or a ``.json`` file: an open_clip
            configuration (embed_dim, vision_cfg, text_cfg, quick_gelu), or the ``student.json`` of a
            distillation. ``"pixelclip-lite"`` is the bundled
            model, ``"pixelclip-lite-start"`` the model its fine-tuning started from.
        checkpoint: File to read the weights from; None for the weights of the named model. For
            pixelclip-lite it holds the image encoder, and perhaps anchors of the text encoder.
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
    from training.models.clip.build import build_clip, configured_model, empty_model
    from training.models.student import read_student

    if name.endswith(".json") and (student := read_student(Path(name))):
        return _load_student(name, student, checkpoint, input_size, offline)
    spec = None if name.endswith(".json") else registry.find(name)
    if spec is not None:
        _check_size(name, input_size, spec.stride)  # before any download
    source: dict[str, Any] = {}
    weights = None
    if checkpoint is None and spec is not None and not random_weights:
        file = hub.fetch(
            spec.repository, *spec.files, revision=spec.revision, sha256=spec.sha256, offline=offline
        )
        source = dataclasses.asdict(file) | {"license": spec.license}
        checkpoint = source.pop("path")
    if checkpoint is not None:
        weights = read_checkpoint(checkpoint)
        source = source or _describe(checkpoint)
    elif not random_weights:
        raise CheckpointError(
            f"{name} has no weights of its own: give a checkpoint (train.py: checkpoint=FILE or "
            "random_weights=true; other commands: --checkpoint FILE)"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = configured_model(Path(name)) if spec is None else empty_model(spec)
    if checkpoint is not None and weights is not None:
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
    from training.models.lite.weights import load_shipped, load_weights

    _check_size(name, input_size, _LITE_STRIDE)
    pair = build_lite(input_size) if input_size else build_lite()
    shipped = load_shipped(pair) if name == LITE else ()
    if checkpoint is not None:
        load_weights(pair, read_checkpoint(checkpoint), source=checkpoint.name)
        shipped = (_describe(checkpoint),)
    return dataclasses.replace(pair, name=name, sources=pair.sources + shipped)


def load_teacher(
    name: str,
    *,
    checkpoint: Path | None = None,
    input_size: tuple[int, int] | None = None,
    offline: bool = False,
) -> EncoderPair:
    """Loads the teacher of a distillation: a bundle on this machine, else a model as in `load_model`.

    A bundle is given by its name or folder; see `pixelclip_sdk.models.find_bundle`.
    """
    if checkpoint is None and (name in available_models() or (Path(name) / MANIFEST).is_file()):
        from training.models.bundled import bundled_pair

        return bundled_pair(find_bundle(name), input_size)
    return load_model(name, checkpoint=checkpoint, input_size=input_size, offline=offline)


def _load_student(
    name: str, about: Student, checkpoint: Path | None, input_size: tuple[int, int] | None, offline: bool
) -> EncoderPair:
    from training.models.student import build_student, student_pair

    if checkpoint is None:
        raise CheckpointError(
            f"{name} describes a student without its weights; give them, for example --checkpoint "
            f"{Path(name).with_name('step-00002000.weights.safetensors')}"
        )
    if input_size:
        about = dataclasses.replace(about, input_size=input_size)
    teacher_file = about.teacher_checkpoint and Path(about.teacher_checkpoint)
    teacher = load_teacher(about.teacher, checkpoint=teacher_file or None, offline=offline)
    if teacher.dim != about.dim:
        raise CheckpointError(
            f"{name} has embeddings of {about.dim} numbers, its teacher {about.teacher} has {teacher.dim}; "
            "write the teacher that it learned from into that file"
        )
    image, _ = build_student(about, pretrained=False)
    weights = read_checkpoint(checkpoint)
    load_exactly(image, weights, source=checkpoint.name, what=f"a student {about.student}")
    pair = student_pair(about, image, teacher)
    source = _describe(checkpoint) | {"license": pair.license}
    return dataclasses.replace(pair, sources=(*pair.sources, source))


def _describe(checkpoint: Path) -> dict[str, str]:
    """Describes a user's checkpoint as the source of the weights; its licence is unknown."""
    return {"file": checkpoint.name, "license": "NOASSERTION", "sha256": sha256(checkpoint)}


def _check_size(name: str, size: tuple[int, int] | None, stride: int) -> None:
    if size is not None and (problem := misfit(size, stride)):
        raise BundleError(f"{name} does not take this input size: {problem}")
