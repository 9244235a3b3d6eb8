"""Which words fit a picture: suggestions out of thousands of nouns, from the features of the picture.

In each cell of the grid the nouns share the cell by a softmax of their cosines. A noun's evidence is its mean
share. The best noun is suggested, nouns that mean nearly the same are dropped, and so on.
"""

import dataclasses
import functools

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.words.classes import NOUNS, class_list, class_lists
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = ["Suggestion", "suggest_words"]

# docs/adr/0021 compares values of these.
TEMPERATURE = 0.15
# Cosine that a common word gains on a rare one: "dog" is a better suggestion than "guide dog".
COMMON = 0.1
# Nouns whose embeddings have a larger cosine mean nearly the same.
_SAME = 0.65
# Nouns that name no particular thing.
_GENERIC = frozenset({
    "appliance", "beverage", "bug", "canine", "container", "dish", "fabric", "food", "footwear", "furniture",
    "garment", "insect", "livestock", "mammal", "motor vehicle", "pet", "reptile", "tool", "vehicle",
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A word that may name something in a picture.

    Attributes:
        name: The word.
        score: Mean cosine of the word where it is the best of the suggested words; where it is nowhere the
            best, its largest cosine.
        share: Share of the picture where it is the best of the suggested words, 0–1.

    Examples:
        >>> from pixelclip_sdk import Suggestion
        >>> Suggestion(name="cat", score=0.41, share=0.9).name
        'cat'
    """

    name: str
    score: float
    share: float


def suggest_words(
    features: npt.NDArray[np.float32],
    nouns: Vocabulary,
    k: int,
    *,
    temperature: float = TEMPERATURE,
    common: float = COMMON,
) -> list[Suggestion]:
    """Return at most `k` nouns that fit a picture, the one with the most evidence first.

    Args:
        features: `(h, w, D)` float32: the features of the picture; see `Segmenter.features`.
        nouns: The nouns to choose from.
        k: Largest number of suggestions.
        temperature: Temperature of the softmax over the nouns, in units of the cosine.
        common: Cosine that the words of the short class lists gain on the others.
    """
    cells = features.reshape(-1, features.shape[2])
    cosines = nouns.embeddings @ cells.T
    shares = cosines + np.array(
        [[common if name in _common_words() else 0] for name in nouns.names], np.float32
    )
    shares -= shares.max(axis=0)
    np.exp(shares / temperature, out=shares)
    shares /= shares.sum(axis=0)
    evidence = shares.mean(axis=1)
    chosen: list[int] = []
    for word in np.argsort(-evidence, kind="stable").tolist():
        if nouns.names[word] in _GENERIC:
            continue
        if chosen and (nouns.embeddings[chosen] @ nouns.embeddings[word]).max() >= _SAME:
            continue
        chosen.append(word)
        if len(chosen) == k:
            break
    best = cosines[chosen].argmax(axis=0)
    found = []
    for i, word in enumerate(chosen):
        own = cosines[word, best == i]
        score = own.mean() if len(own) else cosines[word].max()
        found.append(Suggestion(nouns.names[word], float(score), len(own) / len(cells)))
    return found


@functools.cache
def _common_words() -> frozenset[str]:
    """The words of the short class lists, in lower case."""
    lists = [class_list(name) for name in class_lists() if name != NOUNS]
    return frozenset(text.lower() for texts in lists for words in texts.values() for text in words)
