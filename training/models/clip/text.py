"""CLIP's text encoder as a separate module."""

import open_clip
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.clip.vit import run_block

__all__ = ["ClipTextEncoder"]


class ClipTextEncoder(nn.Module):
    """Text encoder: token ids → one unit vector per text. It shares the parameters of an open_clip model."""

    def __init__(self, model: open_clip.CLIP | open_clip.CustomTextCLIP) -> None:
        super().__init__()
        tower = getattr(model, "text", model)
        pooling = getattr(tower, "pool_type", getattr(tower, "text_pool_type", None))
        if not isinstance(tower, TextTransformer | open_clip.CLIP) or pooling != "argmax":
            raise ValueError("expected CLIP's text transformer, with pooling at the end-of-text token")
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.text_projection = tower.text_projection

    @property
    def dim(self) -> int:
        """Width D of the embeddings."""
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection.out_features
        return int(self.text_projection.shape[1])

    @property
    def max_tokens(self) -> int:
        """Longest text, in tokens."""
        return len(self.positional_embedding)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Maps tokens, int64 `[B, T]`, T at most `max_tokens`, to unit rows `[B, D]`.

        Attention is causal and only the end-of-text token, the largest id, is read: padding has no effect.
        """
        return F.normalize(self.project(self.token_embedding(input_ids), input_ids.argmax(dim=-1)), dim=-1)

    def project(self, tokens: Tensor, end: Tensor) -> Tensor:
        """Embeds texts given as word embeddings `[B, T, C]`, which may be learned: `[B, D]`, not normalised.

        `end`, int64 `[B]`, is the position of each text's end-of-text token.
        """
        length = tokens.shape[1]
        x = tokens + self.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf"), device=x.device, dtype=x.dtype).triu(1)
        for block in self.transformer.resblocks:
            x = run_block(block, x, mask)
        x = self.ln_final(x)[torch.arange(x.shape[0], device=x.device), end]
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(x)
        return x @ self.text_projection
