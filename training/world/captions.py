"""Captions of scenes: English sentences of varying form that mention some of the visible things.

Most words of real captions name no class. Captions therefore add places, people, dates and purposes that no
image shows, so that a random word of the vocabulary seldom names a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Mention", "caption"]


@dataclass(frozen=True)
class Mention:
    """Name and colour of a visible thing."""

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

_WHERE = """
Amsterdam Athens Atlanta Auckland Austin Baltimore Bangkok Barcelona Beijing Belfast Berlin Boston Bristol
Brooklyn Brussels Budapest Cairo Calgary Cambridge Canada Charlotte Chicago Chile Cleveland Cuba Dallas
Delhi Denver Detroit Dubai Dublin Edinburgh Egypt Florence France Germany Glasgow Greece Hamburg Havana
Helsinki Houston Iceland India Ireland Istanbul Italy Jakarta Japan Kenya Kyoto Leeds Lisbon Liverpool
London Madrid Malaysia Manchester Melbourne Memphis Mexico Miami Milan Montreal Morocco Moscow Mumbai Munich
Nairobi Naples Nashville Nepal Norway Oslo Oxford Paris Peru Portland Prague Queensland Rome Scotland
Seattle Shanghai Singapore Spain Stockholm Sweden Sydney Tokyo Toronto Vancouver Venice Vienna Vietnam Wales
Warsaw Zurich
"""
_WHO = """
Adam Alex Alice Amanda Amy Andrea Andrew Angela Anna Anthony Ashley Barbara Ben Brian Carlos Caroline
Charles Chris Claire Daniel David Diana Edward Elena Elizabeth Emily Emma Eric Frank George Grace Hannah
Helen Henry Isabella Jack James Jane Jason Jennifer Jessica Joan John Joseph Julia Karen Kate Kevin Laura
Lisa Louis Lucy Luke Maria Mark Martin Mary Matthew Michael Michelle Monica Nancy Nicole Oliver Oscar
Patricia Paul Peter Philip Rachel Rebecca Richard Robert Roger Sam Sandra Sarah Simon Sophie Stephen Steven
Susan Thomas Tim Tony Victoria Vincent William
"""
_WHEN = """
January February March April June July August September October November December Monday Tuesday Wednesday
Thursday Friday Saturday Sunday Christmas Easter morning afternoon evening night noon weekend holiday today
yesterday winter spring summer autumn
"""
_WHAT_FOR = """
album amazing archive art article award background banner beautiful blog book calendar calm canvas card
charity classic club collection company competition contest cover creative daily design digital download
editorial email evidence exhibition famous favourite feature film free funny gallery gift guide happy
history idea image journal lecture license lovely magazine memory museum news original painting perfect
portfolio post poster premium print project quality quote research review royalty sale school series share
shop sketch souvenir special stock story studio test theatre theme travel update vintage wallpaper website
wonderful workshop
"""
_ASIDES = (
    (("in {}", "near {}", ", {}", "from {}"), _WHERE),
    (("by {}", "for {}", ", {}", "with thanks to {}"), _WHO),
    (("on {}", "last {}", ", {}", "one {}"), _WHEN),
    ((", {}", "for a {}", "for the {}", "({})"), _WHAT_FOR),
)


def caption(rng: np.random.Generator, things: Sequence[Mention], stuff: Sequence[str]) -> str:
    """Return a caption.

    Args:
        rng: Source of all random choices.
        things: Visible objects.
        stuff: Visible materials, the farthest first. There must be at least one thing or material.
    """
    named = [thing for thing in things if rng.random() < 0.85]
    around = [name for name in stuff if rng.random() < 0.7]
    if not named and not around:
        named, around = list(things[:1]), list(stuff[-1:]) if not things else []
    counts = Counter(thing.name for thing in named)
    phrases = [_thing(rng, thing, counts[thing.name]) for thing in {t.name: t for t in named}.values()]
    rng.shuffle(phrases)
    sentence = " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)
    for name in reversed(around):
        form = str(rng.choice(_PLACES.get(name, _BELOW))) if sentence else "{}"
        sentence = f"{sentence} {form.format(_stuff(rng, name))}".strip()
    sentence = str(rng.choice(_FRAMES)).format(sentence)
    for forms, words in _ASIDES:
        if rng.random() < 0.5:
            aside = str(rng.choice(forms)).format(rng.choice(words.split()))
            sentence = f"{sentence} {aside}".replace(" ,", ",")
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
