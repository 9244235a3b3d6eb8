"""Opens the model to evaluate, a PyTorch model or a bundle, with the SDK's backend and vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.bundle import Bundle, InputSpec
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.packages import imported
from pixelclip_sdk.words.vocabulary import Encoder
from training.models.templates import TEMPLATES

__all__ = ["PROMPTS", "Model", "Source", "open_model"]

_TEMPLATES = {"model": None, "none": ("{}",), "single": TEMPLATES[-1:], "ensemble": TEMPLATES}
PROMPTS = tuple(_TEMPLATES)
"""Prompt templates: the model's own, the bare class name, the paper's single one, the paper's ensemble."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The model to open, in a form that can be sent to another process."""

    name: str  # for `training.models.load.load_model`; or name or folder of a bundle
    bundle: bool = False
    checkpoint: Path | None = None  # weights to use instead of the model's own
    input_size: tuple[int, int] | None = None  # (H, W) of a PyTorch model; None for its default
    prompts: str = "model"  # one of PROMPTS
    device: str = "auto"  # or "cpu", "cuda:1"; "gpu:1" for a bundle
    offline: bool = False  # use the local download cache only

    def __str__(self) -> str:
        return f"{self.name} with {self.checkpoint}" if self.checkpoint else self.name


@dataclass(frozen=True)
class Model:
    """An open model.

    Attributes:
        backend: Image encoder.
        spec: Its input sizes.
        vocabulary: The embedded classes.
        segmenter: The three above as a user has them, with the bundle's recommended postprocessing.
        about: JSON values for the report.
    """

    backend: Backend
    spec: InputSpec
    vocabulary: Vocabulary
    segmenter: Segmenter
    about: dict[str, Any]


def open_model(source: Source, classes: Mapping[str, tuple[str, ...]], threads: int | None = None) -> Model:
    """Loads a model and embeds the classes (name → synonyms, in label order)."""
    open_parts = _open_bundle if source.bundle else _open_pair
    backend, encoder, spec, bundle, about = open_parts(source, threads)
    vocabulary = Vocabulary.encode(dict(classes), encoder)
    about |= {
        "sources": [dict(entry) for entry in about["sources"]],
        "backend": backend.description,
        "prompts": source.prompts,
        "templates": list(vocabulary.templates),
        "input": dataclasses.asdict(spec),
    }
    segmenter = Segmenter(backend, spec, vocabulary=vocabulary, bundle=bundle)
    return Model(backend, spec, vocabulary, segmenter, about)


_Parts = tuple[Backend, Encoder, InputSpec, Bundle | None, dict[str, Any]]


def _open_bundle(source: Source, threads: int | None) -> _Parts:
    from pixelclip_sdk.backends.choose import open_backend
    from pixelclip_sdk.models import find_bundle
    from pixelclip_sdk.words.text_encoder import TextEncoder

    bundle = find_bundle(source.name)
    encoder = TextEncoder(bundle, threads=threads)
    encoder.templates = _TEMPLATES[source.prompts] or encoder.templates
    about: dict[str, Any] = {
        "bundle": bundle.name,
        "precision": bundle.precision,
        "sources": bundle.sources,
        "files": {name: entry["sha256"] for name, entry in bundle.files.items()},
    }
    backend = open_backend(bundle, "auto", source.device, threads)
    spec = bundle.input
    if backend.fixed_size is not None:  # An engine may be compiled for one size of a model that takes many.
        height, width = backend.fixed_size
        spec = dataclasses.replace(spec, height=height, width=width, fixed=True)
    return backend, encoder, spec, bundle, about


def _open_pair(source: Source, threads: int | None) -> _Parts:
    torch = imported("torch")
    from training.models.load import load_model
    from training.models.runtime import TorchBackend, TorchTextEncoder
    from training.support.devices import torch_device

    device = str(torch_device(source.device))  # First: loading takes seconds.
    if threads is not None:
        torch.set_num_threads(threads)
    pair = load_model(
        source.name, checkpoint=source.checkpoint, input_size=source.input_size, offline=source.offline
    )
    about: dict[str, Any] = {"model": pair.name, "precision": "fp32", "sources": pair.sources}
    if source.checkpoint is not None:
        about["checkpoint"] = {"file": source.checkpoint.name, "sha256": sha256(source.checkpoint)}
    encoder = TorchTextEncoder(pair, _TEMPLATES[source.prompts])
    return TorchBackend(pair, device), encoder, pair.input, None, about
