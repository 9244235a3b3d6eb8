"""A model to evaluate: a PyTorch pair or an exported bundle, opened as the SDK's parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelclip_sdk import Vocabulary
from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.packages import imported
from pixelclip_sdk.words.vocabulary import Encoder
from training.models.templates import TEMPLATES

__all__ = ["PROMPTS", "Model", "Source", "open_model"]

PROMPTS = ("model", "none", "single", "ensemble")
"""The model's own templates; the bare name; the paper's one template; its ensemble of eight."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which model to open; small, so that every process can open its own.

    Attributes:
        name: A model's name for `training.models.load.load_model`, or with `bundle` that of a bundle or
            its folder.
        bundle: It is an exported bundle, run by the SDK.
        checkpoint: Weights to take instead of those that the name stands for.
        imgsz: Input `(H, W)`; None for the model's own.
        prompts: One of `PROMPTS`: the model's own templates, the bare name, the paper's one, its eight.
        device: ``"auto"``; else of a pair as torch names it, ``"cuda:1"``, of a bundle as the SDK does,
            ``"gpu:1"``.
        offline: Take weights from the hub's cache.
    """

    name: str
    bundle: bool = False
    checkpoint: Path | None = None
    imgsz: tuple[int, int] | None = None
    prompts: str = "model"
    device: str = "auto"
    offline: bool = False


@dataclass(frozen=True)
class Model:
    """An opened model.

    Attributes:
        backend: Its image encoder.
        spec: The sizes it takes.
        vocabulary: The classes, embedded.
        about: What has to be reported of it, JSON-ready.
    """

    backend: Backend
    spec: InputSpec
    vocabulary: Vocabulary
    about: dict[str, Any]


def open_model(source: Source, classes: Mapping[str, tuple[str, ...]], threads: int | None = None) -> Model:
    """Load a model and embed the classes.

    Args:
        source: Which.
        classes: Name → synonyms, in label order.
        threads: CPU threads; None for all that this process may use.

    Raises:
        PixelClipError: There is no such model, or it cannot be used.
    """
    backend, encoder, spec, about = (_open_bundle if source.bundle else _open_pair)(source, threads)
    vocabulary = Vocabulary.encode(dict(classes), encoder)
    about |= {
        "backend": backend.description,
        "prompts": source.prompts,
        "templates": list(vocabulary.templates),
        "input": dataclasses.asdict(spec),
    }
    return Model(backend, spec, vocabulary, about)


_Parts = tuple[Backend, Encoder, InputSpec, dict[str, Any]]


def _open_bundle(source: Source, threads: int | None) -> _Parts:
    from pixelclip_sdk.backends.choose import open_backend
    from pixelclip_sdk.models import find_bundle
    from pixelclip_sdk.words.text_encoder import TextEncoder

    bundle = find_bundle(source.name)
    encoder = TextEncoder(bundle, threads=threads)
    if (templates := _templates(source.prompts)) is not None:
        encoder.templates = templates
    about: dict[str, Any] = {
        "bundle": bundle.name,
        "precision": bundle.precision,
        "sources": [dict(entry) for entry in bundle.sources],
        "files": {name: entry["sha256"] for name, entry in bundle.files.items()},
    }
    return open_backend(bundle, "auto", source.device, threads), encoder, bundle.input, about


def _open_pair(source: Source, threads: int | None) -> _Parts:
    torch = imported("torch")
    from training.models.load import load_model
    from training.models.runtime import TorchBackend, TorchTextEncoder
    from training.support.devices import torch_device

    if threads is not None:
        torch.set_num_threads(threads)
    pair = load_model(
        source.name, checkpoint=source.checkpoint, input_size=source.imgsz, offline=source.offline
    )
    device = str(torch_device(source.device))
    about: dict[str, Any] = {
        "model": pair.name,
        "precision": "fp32",
        "sources": [dict(entry) for entry in pair.sources],
    }
    if source.checkpoint is not None:
        about["checkpoint"] = {"file": source.checkpoint.name, "sha256": sha256(source.checkpoint)}
    encoder = TorchTextEncoder(pair, _templates(source.prompts))
    return TorchBackend(pair, device), encoder, pair.input, about


def _templates(prompts: str) -> tuple[str, ...] | None:
    """The templates of a switch; None for the model's own."""
    if prompts == "model":
        return None
    if prompts == "none":
        return ("{}",)
    return TEMPLATES if prompts == "ensemble" else TEMPLATES[-1:]
