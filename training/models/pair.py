"""`EncoderPair`: an image encoder, its text encoder and everything needed to run, train and export them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from torch import nn

from pixelclip_sdk.bundle import InputSpec

__all__ = ["EncoderPair"]


@dataclass(frozen=True, kw_only=True)
class EncoderPair:
    """An image encoder and the text encoder of the same embedding space, both in evaluation mode.

    Attributes:
        name: The model's name.
        license: SPDX expression of the weights' licence.
        sources: Origin of the weights: one mapping per file, with its `sha256`.
        image: uint8 `[N, H, W, 3]` and text `[K, dim]` → logits `[N, K, h, w]`, features `[N, h, w, dim]`.
        text: Token ids `[B, T]`, and the attention mask if `text_inputs` lists it → `[B, dim]` unit rows.
        network: The module a checkpoint stores: its state dict is the checkpoint format of this model.
            It shares its parameters with `image` and, for a CLIP, with `text`.
        text_inputs: Names of the text encoder's inputs, in order.
        max_tokens: Longest token sequence the text encoder accepts.
        tokenizer: Texts → token ids; truncates at `max_tokens`.
        templates: Prompt templates for class names, each with one ``{}``.
        input: Input sizes the image encoder accepts.
        grid: Output cells `(h, w)` at the nominal input size.
        dim: Width D of the embeddings.
    """

    name: str
    license: str
    sources: tuple[Mapping[str, Any], ...]
    image: nn.Module
    text: nn.Module
    network: nn.Module
    text_inputs: tuple[str, ...]
    max_tokens: int
    tokenizer: Tokenizer
    templates: tuple[str, ...]
    input: InputSpec
    grid: tuple[int, int]
    dim: int
