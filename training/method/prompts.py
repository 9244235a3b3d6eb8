"""Learnable class prompts through the frozen text tower: the cluster embeddings (paper: t_1 … t_k).

Each of k classes has l learnable word embeddings in the place of its name: "A photo of a {} {} {} {} in the
scene". The text tower turns each sentence into one vector. As it is frozen, clusters stay where language is.
"""

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from pixelclip_sdk.errors import VocabularyError
from training.models.clip.text import ClipTextEncoder
from training.models.lite.build import LiteTextEncoder

__all__ = ["ClassPrompts", "TextTower", "whole_words"]

TextTower = ClipTextEncoder | LiteTextEncoder

# Two words that each are one token of every tokenizer here. Where a sentence with one differs from the same
# sentence with the other, there are the slots; no token of a template can be mistaken for one.
_PLACEHOLDERS = ("dog", "cat")
_WORD_END = "</w>"  # CLIP's mark of a word's last piece
_SHORTEST = 3  # letters; shorter tokens are mostly pieces and single letters


class ClassPrompts(nn.Module):
    """k classes of l learnable words each. They start as random whole words of the vocabulary.

    With several templates every class is put into each of them and the class's embedding is the mean of their
    unit vectors. (The official code embeds its single template in place of every other, with the places of
    the other's words, so that its training ensemble is none.)

    Args:
        text: The text tower; used, not kept.
        tokenizer: The tower's.
        count: k.
        length: l.
        templates: Sentences with one ``{}`` each.
        seed: Picks the words.
        learnable: False leaves the words as they are.

    Raises:
        VocabularyError: A template has no ``{}`` or several, or is too long for the tower.
    """

    def __init__(
        self,
        text: TextTower,
        tokenizer: Tokenizer,
        *,
        count: int,
        length: int,
        templates: Sequence[str],
        seed: int = 0,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        self.frames = [_frame(tokenizer, template, length) for template in templates]
        words = torch.tensor(whole_words(tokenizer))
        picked = torch.randint(len(words), (count, length), generator=torch.Generator().manual_seed(seed))
        #: int64 `[k, l]`: the token ids that the prompts began as.
        self.register_buffer("start", words[picked], persistent=False)
        #: float `[k, l, C]`: the learnable words.
        start = _word_table(text)[self.start].detach().clone()
        self.words = nn.Parameter(start, requires_grad=learnable)

    def forward(self, text: TextTower) -> Tensor:
        """The cluster embeddings.

        Args:
            text: The frozen text tower.

        Returns:
            float32 `[k, D]`, unit rows.
        """
        table = _word_table(text)
        sentences = []
        for ids, slots in self.frames:
            ids = torch.tensor(ids, device=table.device)
            tokens = table[ids].expand(len(self.words), -1, -1).clone()
            tokens[:, slots] = self.words
            sentences.append(_embed(text, tokens, ids))
        return F.normalize(torch.stack(sentences).mean(0), dim=-1)


def whole_words(tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that are whole words of three letters or more, in ascending order.

    Args:
        tokenizer: CLIP's, whose words end in ``</w>``, or BERT's, whose pieces begin with ``##``.
    """
    vocabulary = tokenizer.get_vocab()
    marked = any(word.endswith(_WORD_END) for word in vocabulary)
    return sorted(
        index
        for word, index in vocabulary.items()
        if (bare := word.removesuffix(_WORD_END)).isascii()
        and bare.isalpha()
        and len(bare) >= _SHORTEST
        and (bare != word) == marked
    )


def _frame(tokenizer: Tokenizer, template: str, length: int) -> tuple[list[int], list[int]]:
    """A template's token ids with something in the slots, and where the slots are."""
    if template.count("{}") != 1:
        raise VocabularyError(f"the template {template!r} has {template.count('{}')} {{}}; expected one")
    first, second = (
        tokenizer.encode(template.replace("{}", " ".join([word] * length))).ids for word in _PLACEHOLDERS
    )
    slots = [place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(slots) != length:
        raise VocabularyError(
            f"the template {template!r} has room for {len(slots)} of {length} words before the text tower's "
            "limit. Take a shorter template or fewer words."
        )
    return first, slots


def _word_table(text: TextTower) -> Tensor:
    """The embedding of every token: float `[V, C]`."""
    return text.tower.words.weight if isinstance(text, LiteTextEncoder) else text.token_embedding.weight


def _embed(text: TextTower, tokens: Tensor, ids: Tensor) -> Tensor:
    """Sentences as word embeddings → unit vectors.

    Args:
        text: The text tower.
        tokens: float `[B, T, C]`, without padding.
        ids: int64 `[T]`, the token ids of all of them but for the slots.

    Returns:
        float32 `[B, D]`, unit rows.
    """
    if isinstance(text, LiteTextEncoder):
        return text.place(text.tower.embed_words(tokens, tokens.new_ones(tokens.shape[:2]))).float()
    end = ids.argmax().expand(len(tokens))  # CLIP's end of text has the largest id
    return F.normalize(text.project(tokens, end).float(), dim=-1)
