"""Captions of scenes: English sentences of varying form that mention some of the visible things.

Most words of real captions name no class. Captions therefore add places, people, dates and purposes that
no image shows, so that a random word of the vocabulary seldom names a class.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

__all__ = ["Mention", "caption"]


@dataclass(frozen=True)
class Mention:
    """Name and colour of a visible thing."""

    name: str
    colour: str


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

# Where a material is, seen from the things in front of it; all others are below.
_PLACES = {"sky": "above", "forest": "behind", "mountain": "behind", "brick wall": "behind"}
_COUNTED = ("forest", "mountain", "brick wall", "road", "wooden floor")
_NUMBERS = {2: "two", 3: "three"}
_PLURALS = {"person": "people", "cactus": "cacti"}


def caption(rng: np.random.Generator, things: Sequence[Mention], stuff: Sequence[str]) -> str:
    """Return a caption of things and materials, of at least one; the farthest material comes first."""
    named = [thing for thing in things if rng.random() < 0.85]
    around = [name for name in stuff if rng.random() < 0.7]
    if not named and not around:
        named, around = list(things[:1]), list(stuff[-1:]) if not things else []
    counts = Counter(thing.name for thing in named)
    phrases = [_thing(rng, thing, counts[thing.name]) for thing in {t.name: t for t in named}.values()]
    rng.shuffle(phrases)
    sentence = " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)
    for name in reversed(around):
        form = str(rng.choice(_DATA[_PLACES.get(name, "below")])) if sentence else "{}"
        sentence = f"{sentence} {form.format(_stuff(rng, name))}".strip()
    sentence = str(rng.choice(_DATA["frames"])).format(sentence)
    for aside in _DATA["asides"]:
        if rng.random() < 0.5:
            phrase = str(rng.choice(aside["forms"])).format(rng.choice(aside["words"].split()))
            sentence = f"{sentence} {phrase}".replace(" ,", ",")
    return sentence


def _thing(rng: np.random.Generator, thing: Mention, count: int) -> str:
    if count > 1:
        return f"{_NUMBERS[count]} {_PLURALS.get(thing.name, thing.name + 's')}"
    words = f"{thing.colour} {thing.name}" if rng.random() < 0.3 else thing.name
    article = str(rng.choice(["a", "the", "one"]))
    return f"{'an' if article == 'a' and words[0] in 'aeiou' else article} {words}"


def _stuff(rng: np.random.Generator, name: str) -> str:
    article = "a" if name in _COUNTED else "some"
    return f"{rng.choice([article, 'the'])} {name}" if rng.random() < 0.7 else name
