"""`EncoderPair`: an image encoder, its text encoder and everything needed to run, train and export them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer
from torch import nn

from pixelclip_sdk.bundle import InputSpec

__all__ = ["EncoderPair"]


@dataclass(frozen=True, kw_only=True)
class EncoderPair:
    """An image encoder and the text encoder of the same embedding space, both in evaluation mode.

    `image` maps pixels, uint8 `[N, H, W, 3]`, and text `[K, dim]` to logits `[N, K, h, w]` and features
    `[N, h, w, dim]`. `text` maps token ids `[B, T]`, and the attention mask if `text_inputs` lists it, to
    unit rows `[B, dim]`. The state dict of `network` is the checkpoint format of this model. `network` shares
    its parameters with `image` and, for a CLIP, with `text`.
    """

    name: str
    license: str  # SPDX expression of the weights' licence
    sources: tuple[Mapping[str, Any], ...]  # origin of each weight file, with its sha256
    image: nn.Module
    text: nn.Module
    network: nn.Module
    text_inputs: tuple[str, ...]  # names of the text encoder's inputs, in order
    max_tokens: int  # longest token sequence the text encoder accepts
    tokenizer: Tokenizer  # truncates at max_tokens
    templates: tuple[str, ...]  # prompt templates for class names, each with one {}
    input: InputSpec  # input sizes the image encoder accepts
    grid: tuple[int, int]  # output cells (h, w) at the nominal input size
    dim: int  # width of the embeddings
    refine: Literal["edges", "off"] = "off"  # whether labels follow the photo's edges by default
