"""What the world holds: ten kinds of stuff with textures, fourteen kinds of things built of parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["CLASSES", "COLOURS", "GROUNDS", "STUFF", "THINGS", "Part", "Stuff", "Thing"]

Points = tuple[tuple[float, float], ...]

COLOURS = {
    "red": (196, 44, 40),
    "orange": (232, 132, 40),
    "yellow": (232, 206, 70),
    "green": (64, 142, 60),
    "blue": (52, 92, 186),
    "purple": (126, 66, 156),
    "pink": (228, 140, 170),
    "brown": (118, 78, 48),
    "white": (232, 232, 226),
    "grey": (134, 136, 140),
    "black": (38, 38, 42),
}
"""Colours that captions may name: RGB, 0-255."""


@dataclass(frozen=True)
class Stuff:
    """A material: two colours mixed by noise, and lines over it.

    Attributes:
        colours: Pairs to choose from, RGB.
        cells: Rows and columns of the noise: more are finer, and unequal numbers make streaks.
        lines: Joints drawn over it.
        things: What mostly stands on it.
    """

    colours: tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...]
    cells: tuple[int, int]
    lines: Literal["none", "bricks", "planks", "ripples"] = "none"
    things: tuple[str, ...] = ()


STUFF = {
    "sky": Stuff((((96, 150, 214), (224, 232, 240)), ((150, 160, 172), (206, 208, 212))), (4, 3)),
    "forest": Stuff((((22, 58, 30), (66, 110, 48)), ((40, 62, 26), (96, 104, 40))), (14, 14)),
    "mountain": Stuff((((92, 86, 84), (156, 150, 146)), ((104, 84, 66), (164, 144, 122))), (6, 18)),
    "brick wall": Stuff(
        (((142, 74, 58), (170, 98, 78)), ((158, 134, 112), (186, 164, 140))), (8, 8), "bricks"
    ),
    "grass": Stuff(
        (((72, 122, 44), (124, 160, 66)), ((112, 124, 52), (166, 164, 84))),
        (20, 44),
        things=("tree", "house", "flower", "dog", "mushroom", "ball"),
    ),
    "sand": Stuff(
        (((206, 184, 136), (230, 212, 170)), ((186, 150, 106), (212, 180, 134))),
        (10, 5),
        "ripples",
        ("cactus", "umbrella", "ball", "person"),
    ),
    "water": Stuff(
        (((40, 84, 140), (110, 156, 196)), ((46, 110, 116), (124, 170, 168))),
        (30, 5),
        things=("boat", "bird"),
    ),
    "road": Stuff(
        (((84, 84, 88), (112, 112, 114)), ((112, 106, 100), (138, 132, 126))),
        (40, 40),
        things=("car", "person", "lamp", "dog"),
    ),
    "snow": Stuff(
        (((214, 222, 234), (244, 246, 250)), ((196, 204, 220), (228, 232, 240))),
        (5, 4),
        things=("house", "tree", "person", "bird"),
    ),
    "wooden floor": Stuff(
        (((140, 96, 56), (176, 128, 82)), ((186, 146, 100), (212, 178, 134))),
        (6, 30),
        "planks",
        ("cup", "lamp", "dog", "ball", "umbrella"),
    ),
}
"""Materials by name. The first four stand upright, the others lie on the ground."""

GROUNDS = tuple(name for name, stuff in STUFF.items() if stuff.things)


@dataclass(frozen=True)
class Part:
    """A polygon of a thing.

    Attributes:
        points: x, y in 0-1 of the thing's box, y downwards.
        colour: A name of `COLOURS`; ``"own"`` for the thing's; ``"dark"`` or ``"light"`` for a shade of it.
    """

    points: Points
    colour: str


@dataclass(frozen=True)
class Thing:
    """An object.

    Attributes:
        aspect: Width over height.
        size: Height when it stands nearest, as a share of the picture's.
        colours: Of `COLOURS`, what it may have.
        parts: Back to front.
    """

    aspect: float
    size: float
    colours: tuple[str, ...]
    parts: tuple[Part, ...]


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _oval(x: float, y: float, width: float, height: float, turn: float = 0.0) -> Points:
    corners = []
    for step in range(20):
        angle = 2 * math.pi * step / 20
        across, down = width / 2 * math.cos(angle), height / 2 * math.sin(angle)
        corners.append(
            (
                x + across * math.cos(turn) - down * math.sin(turn),
                y + across * math.sin(turn) + down * math.cos(turn),
            )
        )
    return tuple(corners)


def _dome(x: float, top: float, bottom: float, width: float) -> Points:
    """The upper half of an oval."""
    angles = [math.pi * step / 12 for step in range(13)]
    return tuple((x - width / 2 * math.cos(a), bottom - (bottom - top) * math.sin(a)) for a in angles)


_PETALS = tuple(
    Part(_oval(0.5 + 0.24 * math.cos(a), 0.3 + 0.19 * math.sin(a), 0.42, 0.2, a), "own")
    for a in (2 * math.pi * i / 6 for i in range(6))
)

THINGS = {
    "car": Thing(
        1.9,
        0.36,
        ("red", "blue", "white", "black", "yellow", "grey"),
        (
            Part(((0.18, 0.45), (0.32, 0.1), (0.7, 0.1), (0.86, 0.45)), "dark"),
            Part(((0.26, 0.42), (0.36, 0.18), (0.66, 0.18), (0.76, 0.42)), "grey"),
            Part(((0.0, 0.45), (1.0, 0.45), (1.0, 0.82), (0.0, 0.82)), "own"),
            Part(_oval(0.22, 0.82, 0.2, 0.36), "black"),
            Part(_oval(0.78, 0.82, 0.2, 0.36), "black"),
        ),
    ),
    "house": Thing(
        1.1,
        0.62,
        ("white", "yellow", "red", "brown", "grey", "pink"),
        (
            Part(_box(0.08, 0.4, 0.92, 1.0), "own"),
            Part(((0.0, 0.42), (0.5, 0.0), (1.0, 0.42)), "dark"),
            Part(_box(0.42, 0.62, 0.6, 1.0), "brown"),
            Part(_box(0.16, 0.54, 0.32, 0.74), "blue"),
            Part(_box(0.7, 0.54, 0.86, 0.74), "blue"),
        ),
    ),
    "tree": Thing(
        0.75,
        0.75,
        ("green", "green", "orange", "pink"),
        (
            Part(_box(0.43, 0.55, 0.57, 1.0), "brown"),
            Part(_oval(0.3, 0.42, 0.55, 0.42), "dark"),
            Part(_oval(0.7, 0.42, 0.55, 0.42), "own"),
            Part(_oval(0.5, 0.24, 0.64, 0.46), "light"),
        ),
    ),
    "boat": Thing(
        1.0,
        0.5,
        ("white", "red", "blue", "brown", "black"),
        (
            Part(_box(0.46, 0.0, 0.52, 0.7), "brown"),
            Part(((0.55, 0.04), (0.95, 0.6), (0.55, 0.6)), "white"),
            Part(((0.42, 0.14), (0.42, 0.6), (0.14, 0.6)), "light"),
            Part(((0.0, 0.68), (1.0, 0.68), (0.82, 1.0), (0.18, 1.0)), "own"),
        ),
    ),
    "person": Thing(
        0.42,
        0.58,
        ("red", "blue", "green", "yellow", "purple", "white", "black"),
        (
            Part(_box(0.28, 0.6, 0.46, 1.0), "dark"),
            Part(_box(0.54, 0.6, 0.72, 1.0), "dark"),
            Part(((0.1, 0.3), (0.9, 0.3), (0.76, 0.64), (0.24, 0.64)), "own"),
            Part(_oval(0.5, 0.15, 0.5, 0.28), "pink"),
        ),
    ),
    "dog": Thing(
        1.4,
        0.32,
        ("brown", "black", "white", "grey", "orange"),
        (
            Part(((0.0, 0.15), (0.08, 0.1), (0.2, 0.5), (0.1, 0.5)), "own"),
            Part(_box(0.14, 0.6, 0.24, 1.0), "dark"),
            Part(_box(0.56, 0.6, 0.66, 1.0), "dark"),
            Part(_oval(0.42, 0.56, 0.68, 0.4), "own"),
            Part(_oval(0.8, 0.34, 0.36, 0.44), "light"),
            Part(_oval(0.7, 0.34, 0.12, 0.4), "dark"),
        ),
    ),
    "ball": Thing(
        1.0,
        0.24,
        ("red", "orange", "blue", "yellow", "pink", "purple"),
        (
            Part(_oval(0.5, 0.5, 1.0, 1.0), "own"),
            Part(_oval(0.5, 0.5, 0.98, 0.34), "white"),
        ),
    ),
    "flower": Thing(
        0.55,
        0.46,
        ("red", "yellow", "pink", "purple", "white", "blue"),
        (
            Part(_box(0.46, 0.3, 0.54, 1.0), "green"),
            Part(_oval(0.7, 0.78, 0.4, 0.1, -0.5), "green"),
            *_PETALS,
            Part(_oval(0.5, 0.3, 0.3, 0.17), "orange"),
        ),
    ),
    "mushroom": Thing(
        0.95,
        0.34,
        ("red", "brown", "orange", "purple"),
        (
            Part(_box(0.36, 0.45, 0.64, 1.0), "white"),
            Part(_dome(0.5, 0.0, 0.55, 1.0), "own"),
            Part(_oval(0.32, 0.32, 0.14, 0.13), "white"),
            Part(_oval(0.62, 0.22, 0.16, 0.14), "white"),
        ),
    ),
    "umbrella": Thing(
        1.0,
        0.54,
        ("red", "blue", "yellow", "green", "purple", "pink"),
        (
            Part(_box(0.47, 0.3, 0.53, 1.0), "black"),
            Part(_dome(0.5, 0.0, 0.46, 1.0), "own"),
            Part(_dome(0.5, 0.0, 0.46, 0.4), "light"),
        ),
    ),
    "cup": Thing(
        1.15,
        0.3,
        ("white", "red", "blue", "green", "yellow", "black"),
        (
            Part(_oval(0.82, 0.48, 0.36, 0.56), "dark"),
            Part(_oval(0.82, 0.48, 0.18, 0.3), "brown"),
            Part(((0.05, 0.08), (0.8, 0.08), (0.68, 1.0), (0.17, 1.0)), "own"),
            Part(_oval(0.425, 0.1, 0.75, 0.2), "light"),
        ),
    ),
    "lamp": Thing(
        0.5,
        0.6,
        ("yellow", "white", "orange", "red", "green"),
        (
            Part(_box(0.45, 0.3, 0.55, 0.95), "grey"),
            Part(_oval(0.5, 0.95, 0.6, 0.1), "grey"),
            Part(((0.3, 0.0), (0.7, 0.0), (1.0, 0.36), (0.0, 0.36)), "own"),
        ),
    ),
    "cactus": Thing(
        0.8,
        0.5,
        ("green",),
        (
            Part(_box(0.02, 0.3, 0.18, 0.62), "dark"),
            Part(_box(0.02, 0.5, 0.5, 0.64), "dark"),
            Part(_box(0.82, 0.2, 0.98, 0.5), "light"),
            Part(_box(0.5, 0.4, 0.98, 0.54), "light"),
            Part((*_dome(0.5, 0.0, 0.14, 0.3), (0.65, 1.0), (0.35, 1.0)), "own"),
        ),
    ),
    "bird": Thing(
        1.5,
        0.24,
        ("white", "black", "blue", "red", "yellow"),
        (
            Part(((0.0, 0.3), (0.3, 0.5), (0.25, 0.7)), "dark"),
            Part(_oval(0.46, 0.62, 0.62, 0.52), "own"),
            Part(((0.28, 0.55), (0.46, 0.0), (0.62, 0.55)), "light"),
            Part(_oval(0.78, 0.42, 0.28, 0.38), "own"),
            Part(((0.9, 0.36), (1.0, 0.46), (0.9, 0.54)), "orange"),
        ),
    ),
}
"""Objects by name."""

CLASSES = (*STUFF, *THINGS)
"""Names in label order."""
