"""The materials and objects of the drawn world, read from ``catalogue.yaml``."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import yaml

__all__ = ["CLASSES", "COLOURS", "GROUNDS", "STUFF", "THINGS", "Part", "Stuff", "Thing"]

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Stuff:
    """A material: two colours mixed by noise, with lines over them."""

    colours: list[list[list[int]]]  # pairs of RGB colours to choose from
    cells: list[int]  # rows and columns of the noise
    lines: str = "none"  # or "bricks", "planks" or "ripples"
    things: list[str] = field(default_factory=list)  # objects that mostly stand on it


@dataclass(frozen=True)
class Part:
    """A polygon of an object."""

    points: Points  # (x, y) in 0-1 of the object's box, y downwards
    colour: str  # a name of `COLOURS`; "own", the object's colour; or "dark" or "light", a shade of it


@dataclass(frozen=True)
class Thing:
    """An object."""

    aspect: float  # width over height
    size: float  # height when nearest, as a share of the photo's height
    colours: list[str]  # names of `COLOURS` to choose from
    parts: list[Part]  # from back to front


def _polygon(*coordinates: float) -> Points:
    return tuple(zip(coordinates[::2], coordinates[1::2], strict=True))


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _oval(x: float, y: float, width: float, height: float, turn: float = 0.0) -> Points:
    corners = []
    for step in range(20):
        angle = 2 * math.pi * step / 20
        across, down = width / 2 * math.cos(angle), height / 2 * math.sin(angle)
        left, top = x + across * math.cos(turn), y + across * math.sin(turn)
        corners.append((left - down * math.sin(turn), top + down * math.cos(turn)))
    return tuple(corners)


def _dome(x: float, top: float, bottom: float, width: float) -> Points:
    """Return the upper half of an oval."""
    angles = [math.pi * step / 12 for step in range(13)]
    return tuple((x - width / 2 * math.cos(a), bottom - (bottom - top) * math.sin(a)) for a in angles)


_SHAPES = {"polygon": _polygon, "box": _box, "oval": _oval, "dome": _dome}


def _part(entry: dict[str, str]) -> Part:
    """Return the part of an entry such as ``{"own": "dome 0.5 0 0.14 0.3 + polygon 0.65 1 0.35 1"}``."""
    ((colour, text),) = entry.items()
    points: list[tuple[float, float]] = []
    for shape in text.split(" + "):
        kind, *numbers = shape.split()
        points += _SHAPES[kind](*map(float, numbers))
    return Part(tuple(points), colour)


_DATA = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

COLOURS: dict[str, list[int]] = _DATA["colours"]
"""RGB colours by name, 0-255."""

STUFF = {name: Stuff(**entry) for name, entry in _DATA["stuff"].items()}
"""Materials by name."""

GROUNDS = tuple(name for name, stuff in STUFF.items() if stuff.things)
"""Materials that objects stand on."""

THINGS = {
    name: Thing(**{**entry, "parts": [_part(part) for part in entry["parts"]]})
    for name, entry in _DATA["things"].items()
}
"""Objects by name."""

CLASSES = (*STUFF, *THINGS)
"""Class names in label order."""
