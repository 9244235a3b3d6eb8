"""Runs a PyTorch model with the SDK's pre- and postprocessing: a backend and a text encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from pixelclip_sdk.backends.base import Backend
from training.models.pair import EncoderPair

__all__ = ["TorchBackend", "TorchTextEncoder", "embed_texts"]

_BATCH = 64


class TorchBackend(Backend):
    """Backend of `pixelclip_sdk.Segmenter` that runs a PyTorch image encoder, which it moves to `device`."""

    def __init__(self, pair: EncoderPair, device: str = "cpu") -> None:
        super().__init__(
            embedding_dim=pair.dim, multiple=pair.input.multiple, fixed_size=pair.input.only_size
        )
        self._image, self._device = pair.image.to(device).eval(), device

    @property
    def description(self) -> str:
        """Human-readable engine and device."""
        return f"PyTorch {torch.__version__}, {self._device}"

    def _logits(
        self, images: npt.NDArray[np.uint8], text: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        return self._run(images, text)[0]

    def _features(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return self._run(images, np.zeros((1, self.embedding_dim), np.float32))[1]

    @torch.inference_mode()
    def _run(
        self, images: npt.NDArray[np.uint8], text: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        # Copied, because torch warns about read-only arrays.
        inputs = (torch.from_numpy(array.copy()).to(self._device) for array in (images, text))
        logits, features = self._image(*inputs)
        return logits.float().cpu().numpy(), features.float().cpu().numpy()


class TorchTextEncoder:
    """Text encoder for `pixelclip_sdk.Vocabulary.encode`, with the model's prompt templates or others."""

    text_hash = ""

    def __init__(self, pair: EncoderPair, templates: Sequence[str] | None = None) -> None:
        self.templates = pair.templates if templates is None else tuple(templates)
        self._pair = pair

    def check_words(self, words: Sequence[str]) -> None:
        """Accepts every word."""

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Embeds texts: `(N, D)` float32 unit rows."""
        pair = self._pair
        return embed_texts(pair.text, pair.tokenizer, pair.text_inputs, texts).cpu().numpy()


def embed_texts(text: nn.Module, tokenizer: Tokenizer, inputs: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Tokenizes texts and embeds them in batches: `(N, D)`; `inputs` are the input names of `text`."""
    tokenizer.enable_padding()
    device = next((parameter.device for parameter in text.parameters()), None)
    rows = []
    for start in range(0, len(texts), _BATCH):
        encodings = tokenizer.encode_batch(list(texts[start : start + _BATCH]))
        tokens = {
            "input_ids": torch.tensor([one.ids for one in encodings], device=device),
            "attention_mask": torch.tensor([one.attention_mask for one in encodings], device=device),
        }
        rows.append(text(*(tokens[name] for name in inputs)))
    return torch.cat(rows)
