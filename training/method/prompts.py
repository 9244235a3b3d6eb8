"""Learnable class prompts, embedded by the frozen text tower: the cluster embeddings (paper: t_1 … t_k).

Each of k classes has l learnable word embeddings in place of its name: "A photo of a {} {} {} {} in the
scene". The frozen text tower keeps the clusters in the space of language.
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

# Each is one token in every tokenizer. The slots are the tokens that differ between a sentence with the one
# and the same sentence with the other.
_PLACEHOLDERS = ("dog", "cat")
_WORD_END = "</w>"  # marks the last piece of a word in CLIP's vocabulary
_SHORTEST = 3  # letters; shorter tokens are mostly pieces of words


class ClassPrompts(nn.Module):
    """k prompts of l learnable words (`count`, `length`), initialised with random words of the vocabulary.

    With several templates, the embedding of a class is the mean of its unit vectors in each of them. (The
    official code embeds the first template for all, so that its training ensemble has no effect.) Raises
    VocabularyError if a template does not have exactly one ``{}``, or is too long for the text tower.
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
        #: int64 `[k, l]`: token ids of the initial words.
        self.register_buffer("start", words[picked], persistent=False)
        #: float `[k, l, C]`: the learnable words.
        start = _word_table(text)[self.start].detach().clone()
        self.words = nn.Parameter(start, requires_grad=learnable)

    def forward(self, text: TextTower) -> Tensor:
        """Return the cluster embeddings by the frozen text tower: float32 `[k, D]`, unit rows."""
        table = _word_table(text)
        sentences = []
        for ids, slots in self.frames:
            ids = torch.tensor(ids, device=table.device)
            tokens = table[ids].expand(len(self.words), -1, -1).clone()
            tokens[:, slots] = self.words
            sentences.append(_embed(text, tokens, ids))
        return F.normalize(torch.stack(sentences).mean(0), dim=-1)


def whole_words(tokenizer: Tokenizer) -> list[int]:
    """Return the ids of all tokens that are whole words of three letters or more, in ascending order.

    In CLIP's tokenizer, words end in ``</w>``; in BERT's, other pieces begin with ``##``.
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
    """Return a template's token ids, with placeholders in the slots, and the positions of the slots."""
    if template.count("{}") != 1:
        raise VocabularyError(f"the template {template!r} has {template.count('{}')} {{}}; expected one")
    first, second = (
        tokenizer.encode(template.replace("{}", " ".join([word] * length))).ids for word in _PLACEHOLDERS
    )
    slots = [place for place, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    if len(slots) != length:
        raise VocabularyError(
            f"the template {template!r} leaves room for {len(slots)} of {length} words within the "
            "text tower's limit. Use a shorter template or fewer words."
        )
    return first, slots


def _word_table(text: TextTower) -> Tensor:
    """Return the embeddings of all tokens: float `[V, C]`."""
    return text.tower.words.weight if isinstance(text, LiteTextEncoder) else text.token_embedding.weight


def _embed(text: TextTower, tokens: Tensor, ids: Tensor) -> Tensor:
    """Embed B sentences of T word embeddings, float `[B, T, C]`; returns unit rows, float32 `[B, D]`.

    `ids` int64 `[T]` are the token ids of their template.
    """
    if isinstance(text, LiteTextEncoder):
        return text.place(text.tower.embed_words(tokens, tokens.new_ones(tokens.shape[:2]))).float()
    end = ids.argmax().expand(len(tokens))  # CLIP's end of text has the largest id
    return F.normalize(text.project(tokens, end).float(), dim=-1)
