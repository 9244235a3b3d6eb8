"""Builds an `EncoderPair` from an open_clip model."""

from __future__ import annotations

import logging
from pathlib import Path

import open_clip
import torch
from open_clip.timm_model import TimmModel
from torch import nn

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.errors import CheckpointError
from pixelclip_sdk.support.json_files import read_json
from training.models import registry
from training.models.clip.convnext import DenseConvNeXt
from training.models.clip.text import ClipTextEncoder
from training.models.clip.tokenizer import END_OF_TEXT, clip_tokenizer
from training.models.clip.vit import DenseViT
from training.models.dense import DenseImageEncoder, grid_size
from training.models.pair import EncoderPair
from training.models.templates import TEMPLATES

__all__ = ["build_clip", "configured_model", "empty_model", "weight_bytes"]

# The official models run on 20×20 patches: 320² pixels for the ViT, 640² for the ConvNeXt.
_PATCHES = 20


def build_clip(
    name: str,
    model: nn.Module,
    *,
    spec: registry.Spec | None = None,
    input_size: tuple[int, int] | None = None,
    license: str = "NOASSERTION",
    sources: tuple[dict[str, str], ...] = (),
) -> EncoderPair:
    """Builds dense encoders around an open_clip CLIP, which is set to evaluation mode and not copied.

    The pixels are normalised as `spec` says, or else as CLIP's. The input `(H, W)` is 20×20 patches if no
    `input_size` is given.

    Raises:
        CheckpointError: The towers are not CLIP's ViT or ConvNeXt, or the vocabulary is not CLIP's.
        BundleError: `input_size` is not a multiple of the patch size.
    """
    model.eval()
    dense = DenseConvNeXt if isinstance(model.visual, TimmModel) else DenseViT
    try:
        tower, text = dense(model.visual), ClipTextEncoder(model)
    except ValueError as error:
        raise CheckpointError(
            f"{name} cannot be made dense: {error}. Use a ViT or ConvNeXt of CLIP."
        ) from error
    if (tokens := len(text.token_embedding.weight)) != END_OF_TEXT + 1:
        raise CheckpointError(
            f"the text encoder of {name} has {tokens} tokens; expected {END_OF_TEXT + 1}, as CLIP's tokenizer"
        )
    tokenizer = clip_tokenizer()
    tokenizer.enable_truncation(text.max_tokens)
    statistics = [[255 * value for value in values] for values in (spec.mean, spec.std)] if spec else []
    stride = tower.stride
    height, width = input_size or (_PATCHES * stride, _PATCHES * stride)
    return EncoderPair(
        name=name,
        license=license,
        sources=sources,
        image=DenseImageEncoder(tower, *statistics).eval(),
        text=text.eval(),
        network=model,
        text_inputs=("input_ids",),
        max_tokens=text.max_tokens,
        tokenizer=tokenizer,
        templates=TEMPLATES,
        # The official protocol stretches images to a square; other shapes keep the aspect ratio.
        input=InputSpec(height=height, width=width, multiple=stride, fixed=True, keep_aspect=height != width),
        grid=grid_size(height // stride, width // stride),
        dim=tower.dim,
    )


def empty_model(spec: registry.Spec) -> nn.Module:
    """Creates the open_clip model of a `Spec`, with random weights."""
    logging.disable(logging.WARNING)  # open_clip warns about random weights; the caller loads real ones.
    try:
        return open_clip.create_model(
            spec.architecture, pretrained=None, load_weights=False, force_quick_gelu=spec.quick_gelu
        )
    finally:
        logging.disable(logging.NOTSET)


def configured_model(file: Path) -> nn.Module:
    """Creates an open_clip model with random weights from JSON with embed_dim, vision_cfg and text_cfg."""
    try:
        return open_clip.CLIP(**read_json(file))
    except OSError as error:
        raise CheckpointError(f"cannot read the model configuration {file}: {error.strerror}") from error
    # open_clip raises many kinds of errors for a wrong configuration.
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"{file} is not an open_clip configuration ({error}); expected JSON with embed_dim, "
            "vision_cfg and text_cfg"
        ) from error


def weight_bytes(name: str) -> dict[str, int]:
    """Returns the bytes of a model's ``"image"`` and ``"text"`` encoder in fp32, without loading them."""
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(registry.find(name).architecture))
    image, both = (sum(p.numel() for p in part.parameters()) for part in (model.visual, model))
    return {"image": 4 * image, "text": 4 * (both - image)}
