"""What every family of encoders comes as: both towers and all that one needs to use them."""

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
    """An image encoder and the text encoder of its space, both in evaluation mode.

    Attributes:
        name: The model's name.
        license: SPDX expression of the weights' licence.
        sources: Where the weights come from: one mapping each, with their `sha256`.
        image: uint8 `[N, H, W, 3]` and text `[K, dim]` → logits `[N, K, h, w]`, features `[N, h, w, dim]`.
        text: Token ids `[B, T]`, and the attention mask if it is among `text_inputs` → `[B, dim]` unit rows.
        text_inputs: Names of the text encoder's inputs, in their order.
        max_tokens: Most tokens the text encoder takes.
        tokenizer: Texts → token ids; truncates at `max_tokens`.
        templates: Prompts a class name is put into, each with one ``{}``.
        input: The sizes the image encoder takes.
        grid: Cells `(h, w)` of its output at the nominal size.
        dim: Width D of the embeddings.
    """

    name: str
    license: str
    sources: tuple[Mapping[str, Any], ...]
    image: nn.Module
    text: nn.Module
    text_inputs: tuple[str, ...]
    max_tokens: int
    tokenizer: Tokenizer
    templates: tuple[str, ...]
    input: InputSpec
    grid: tuple[int, int]
    dim: int
