"""Sentences about a scene, as people write them: of some of what is there, each time in another form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Mention", "caption"]


@dataclass(frozen=True)
class Mention:
    """A thing that can be spoken of: its name and its colour."""

    name: str
    colour: str


_FRAMES = (
    "a photo of {}",
    "A photo of {} in the scene",
    "there is {} here",
    "a picture with {}",
    "{}",
    "this is {}",
    "we see {}",
    "a small photo of {}",
    "a view of {}",
)
_ABOVE = ("under {}", "and {}", "with {} above")
_BEHIND = ("before {}", "and {}", "with {} behind", "near {}")
_BELOW = ("on {}", "standing on {}", "with {} around", "and {}", "over {}")
_PLACES = {"sky": _ABOVE, "forest": _BEHIND, "mountain": _BEHIND, "brick wall": _BEHIND}
_COUNTED = ("forest", "mountain", "brick wall", "road", "wooden floor")
_NUMBERS = {2: "two", 3: "three"}
_PLURALS = {"person": "people", "cactus": "cacti"}


def caption(rng: np.random.Generator, things: Sequence[Mention], stuff: Sequence[str]) -> str:
    """A sentence.

    Args:
        rng: Chooses what is named and how.
        things: Objects that can be seen.
        stuff: Materials that can be seen, the farthest first. One thing or material at least is needed.
    """
    named = [thing for thing in things if rng.random() < 0.85]
    around = [name for name in stuff if rng.random() < 0.7]
    if not named and not around:
        named, around = list(things[:1]), list(stuff[-1:]) if not things else []
    counts = Counter(thing.name for thing in named)
    words = [_thing(rng, thing, counts[thing.name]) for thing in {t.name: t for t in named}.values()]
    rng.shuffle(words)
    said = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    for name in reversed(around):
        form = str(rng.choice(_PLACES.get(name, _BELOW))) if said else "{}"
        said = f"{said} {form.format(_stuff(rng, name))}".strip()
    return str(rng.choice(_FRAMES)).format(said)


def _thing(rng: np.random.Generator, thing: Mention, count: int) -> str:
    if count > 1:
        return f"{_NUMBERS[count]} {_PLURALS.get(thing.name, thing.name + 's')}"
    words = f"{thing.colour} {thing.name}" if rng.random() < 0.3 else thing.name
    article = str(rng.choice(["a", "the", "one"]))
    return f"{'an' if article == 'a' and words[0] in 'aeiou' else article} {words}"


def _stuff(rng: np.random.Generator, name: str) -> str:
    article = "a" if name in _COUNTED else "some"
    return f"{rng.choice([article, 'the'])} {name}" if rng.random() < 0.7 else name
