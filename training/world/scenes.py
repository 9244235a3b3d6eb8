"""Drawn scenes: a photo, its caption, unlabelled regions, and labels for scoring.

Textured materials fill bands; things stand on the ground, nearer ones larger and in front; then shadow,
light, blotches of coloured light and noise are added. A blotch is about as large as a cell of the small CLIP,
so that a cell shows less than its region, as in photos, where a patch of grass alone is ambiguous. Regions
are finer than classes, as SAM's are: each part of a thing is one, and materials are split into pieces.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pixelclip_sdk.support.files import atomic_write
from training.world.captions import Mention, caption
from training.world.catalogue import CLASSES, COLOURS, GROUNDS, STUFF, THINGS, Part

__all__ = ["SIDE", "Scene", "make_scene", "write_scenes"]

Floats = npt.NDArray[np.float32]

SIDE = 96
"""Side of the photos, in pixels."""

_BLOTCHES = 100  # grey levels between the darkest and the brightest blotch of a colour
_OVERSAMPLING = 4  # of polygons, for smooth edges


@dataclass(frozen=True)
class Scene:
    """One scene."""

    photo: npt.NDArray[np.uint8]  # [SIDE, SIDE, 3], RGB
    truth: npt.NDArray[np.uint8]  # [SIDE, SIDE], indices into `CLASSES`
    regions: npt.NDArray[np.uint8]  # [SIDE, SIDE], region numbers without meaning
    caption: str


def make_scene(seed: int, number: int, *, close: bool = False) -> Scene:
    """Draw a scene, determined by its arguments; `close` draws one thing, as most captioned photos show."""
    return _Canvas(np.random.default_rng([seed, number]), close).finish()


def write_scenes(folder: Path, count: int, seed: int, *, close: float = 0.0) -> None:
    """Write a set of scenes, with a share of close-ups that come first.

    The folder gets ``images/NNNNN.png`` and ``labels/NNNNN.png`` (the data set `folder` of
    `training.evaluation.datasets`), ``regions/NNNNN.png`` (for ``make_masks.py regions``), ``captions.json``
    (stem → sentence) and ``classes.txt``.
    """
    captions = {}
    for kind in ("images", "labels", "regions"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene, stem = make_scene(seed, number, close=number < close * count), f"{number:05d}"
        for kind, pixels in (("images", scene.photo), ("labels", scene.truth), ("regions", scene.regions)):
            with atomic_write(folder / kind / f"{stem}.png") as temporary:
                Image.fromarray(pixels).save(temporary, compress_level=1)
        captions[stem] = scene.caption
    with atomic_write(folder / "classes.txt") as temporary:
        temporary.write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    # Written last, as the mark of a complete set.
    with atomic_write(folder / "captions.json") as temporary:
        temporary.write_text(json.dumps(captions, indent=0) + "\n", encoding="utf-8")


class _Canvas:
    """A scene that is being drawn."""

    def __init__(self, rng: np.random.Generator, close: bool) -> None:
        self.rng, self.close = rng, close
        self.photo: Floats = np.zeros((SIDE, SIDE, 3), np.float32)
        self.truth = np.zeros((SIDE, SIDE), np.uint8)
        self.regions = np.zeros((SIDE, SIDE), np.uint8)
        self.count = 0
        self.stuff: list[str] = []
        self.things: list[tuple[str, str]] = []  # name, colour
        self._bands()
        self._place()
        self._light()

    def finish(self) -> Scene:
        """Return the scene, with a caption of visible things only."""
        visible = np.bincount(self.truth.ravel(), minlength=len(CLASSES)) >= 30
        things = [Mention(n, c) for n, c in self.things if visible[CLASSES.index(n)]]
        stuff = [name for name in self.stuff if visible[CLASSES.index(name)]]
        photo = np.clip(self.photo, 0, 255).astype(np.uint8)
        return Scene(photo, self.truth, self.regions, caption(self.rng, things, stuff))

    def _bands(self) -> None:
        """Draw an upright material behind and a ground in front, sometimes two of each."""
        rng = self.rng
        self.horizon = rng.uniform(0.3, 0.6) * SIDE
        ground = str(rng.choice(GROUNDS))
        indoors = ground == "wooden floor"
        far = "brick wall" if rng.random() < (0.8 if indoors else 0.12) else "sky"
        self._fill(far, np.ones((SIDE, SIDE), bool))
        if far == "sky" and rng.random() < (0.3 if self.close else 0.55):
            middle = str(rng.choice(["forest", "mountain"]))
            rough = 6.0 if middle == "forest" else 14.0
            height = rng.uniform(0.1, 0.26) * SIDE
            self._fill(middle, self._below(self.horizon - height, rough))
        self._fill(ground, self._below(self.horizon, 1.5))
        if not indoors and not self.close and rng.random() < 0.4:
            other = str(rng.choice([name for name in GROUNDS if name not in (ground, "wooden floor")]))
            rows, columns = np.mgrid[:SIDE, :SIDE]
            edge = rng.uniform(0.25, 0.75) * SIDE + rng.uniform(-0.8, 0.8) * (rows - self.horizon)
            side = (columns > edge) if rng.random() < 0.5 else (columns < edge)
            self._fill(other, side & self._below(self.horizon, 1.5))

    def _below(self, level: float, rough: float) -> npt.NDArray[np.bool_]:
        """Return the pixels below a wavy line."""
        line = level + rough * (self._noise(1, 8)[0] - 0.5) * 2
        return np.arange(SIDE)[:, None] > line[None]

    def _fill(self, name: str, where: npt.NDArray[np.bool_]) -> None:
        """Fill pixels with a texture and split them into regions."""
        rng, stuff = self.rng, STUFF[name]
        low, high = (np.array(c, np.float32) for c in stuff.colours[rng.integers(len(stuff.colours))])
        tint = rng.normal(0, 7, 3).astype(np.float32)
        mix = self._noise(*stuff.cells)[..., None]
        texture = low + (high - low) * mix + tint
        rows, columns = np.mgrid[:SIDE, :SIDE]
        if stuff.lines == "bricks":
            course = rows // 7
            texture[(rows % 7 == 0) | ((columns + 6 * (course % 2)) % 12 == 0)] += 34
        elif stuff.lines == "planks":
            texture[(columns + (rows - SIDE) * rng.uniform(-0.4, 0.4)).astype(int) % 13 == 0] -= 40
        elif stuff.lines == "ripples":
            texture += 9 * np.sin((rows + 5 * self._noise(4, 4)) * 0.9)[..., None]
        self.photo[where] = texture[where]
        self.truth[where] = CLASSES.index(name)
        self.stuff.append(name)
        # Regions are Voronoi cells of a few points, with frayed borders.
        points = rng.uniform(0, SIDE, (rng.integers(2, 6), 2))
        fray = 10 * (np.stack([self._noise(8, 8), self._noise(8, 8)]) - 0.5)
        spots = np.stack([rows, columns]) + fray
        near = ((spots[:, None] - points.T[:, :, None, None]) ** 2).sum(0).argmin(0)
        for piece in range(len(points)):
            self._region(where & (near == piece))

    def _region(self, where: npt.NDArray[np.bool_]) -> None:
        self.count += 1
        self.regions[where] = self.count

    def _noise(self, rows: int, columns: int) -> Floats:
        """Return smooth noise in 0-1 with this many cells: `[SIDE, SIDE]`."""
        small = Image.fromarray(self.rng.random((rows + 1, columns + 1), np.float32))
        return np.clip(np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), 0, 1)

    def _place(self) -> None:
        """Draw one to three things, the farthest first; one in a close-up."""
        rng = self.rng
        if self.close:
            name = str(rng.choice(tuple(THINGS)))
            size = rng.uniform(0.5, 0.85) / max(THINGS[name].size, THINGS[name].size * THINGS[name].aspect)
            self._thing(name, rng.uniform(0.4, 0.6) * SIDE, rng.uniform(0.75, 0.95) * SIDE, size, shadow=True)
            return
        feet = np.sort(rng.uniform(self.horizon + 0.08 * SIDE, 1.02 * SIDE, rng.integers(1, 4)))
        for foot in feet:
            x = rng.uniform(0.1, 0.9) * SIDE
            below = CLASSES[self.truth[min(int(foot), SIDE - 1), int(x)]]
            usual = STUFF[below].things if below in STUFF else ()
            name = str(rng.choice(usual if usual and rng.random() < 0.7 else tuple(THINGS)))
            nearness = (foot - self.horizon) / (SIDE - self.horizon)
            flies = name == "bird" and rng.random() < 0.6
            if flies:
                foot = rng.uniform(0.25, 0.8) * self.horizon
            self._thing(name, x, foot, 0.8 + 0.6 * nearness, shadow=not flies)

    def _thing(self, name: str, x: float, foot: float, scale: float, *, shadow: bool) -> None:
        """Draw a thing that stands at (x, foot)."""
        rng, thing = self.rng, THINGS[name]
        colour = str(rng.choice(thing.colours))
        height = thing.size * SIDE * scale * rng.uniform(0.85, 1.15)
        width = height * thing.aspect * rng.uniform(0.85, 1.15)
        flip, lean = rng.random() < 0.5, rng.normal(0, 0.05)
        own = np.array(COLOURS[colour], np.float32) * rng.uniform(0.85, 1.12) + rng.normal(0, 10, 3)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        if shadow:
            across, down = (columns - x - 0.15 * width) / (0.62 * width), (rows - foot) / (0.12 * height)
            far = across**2 + down**2
            self.photo *= 1 - 0.45 * np.clip(1.2 - far, 0, 1)[..., None].astype(np.float32)
        shade = (1.12 - 0.3 * np.clip((rows - foot + height) / height, 0, 1))[..., None].astype(np.float32)
        grain = 0.9 + 0.2 * self._noise(24, 24)[..., None]
        for part in thing.parts:
            corners = []
            for across, down in part.points:
                across = (0.5 - across if flip else across - 0.5) + lean * (1 - down)
                corners.append((x + across * width, foot - (1 - down) * height))
            share = _coverage(corners)
            paint = _paint(part, own) * shade * grain
            self.photo += (paint - self.photo) * share[..., None]
            where = share >= 0.5
            self.truth[where] = CLASSES.index(name)
            self._region(where)
        self.things.append((name, colour))

    def _light(self) -> None:
        """Apply the light's colour and direction, blotches, and camera noise."""
        rng = self.rng
        colour = rng.uniform(0.65, 1.1) * (1 + rng.normal(0, 0.05, 3))
        fall = 1 + rng.uniform(-0.2, 0.2) * np.linspace(-1, 1, SIDE)
        self.photo *= (fall[None, :, None] * colour).astype(np.float32)
        blotches = np.stack([self._noise(12, 12) for _ in range(3)], axis=-1)
        self.photo += _BLOTCHES * (blotches - 0.5)
        self.photo += rng.normal(0, 5, self.photo.shape).astype(np.float32)


def _coverage(corners: list[tuple[float, float]]) -> Floats:
    """Return the share of each pixel that lies in a polygon: `[SIDE, SIDE]`."""
    mask = Image.new("L", (SIDE * _OVERSAMPLING, SIDE * _OVERSAMPLING))
    ImageDraw.Draw(mask).polygon([(x * _OVERSAMPLING, y * _OVERSAMPLING) for x, y in corners], fill=255)
    return np.asarray(mask.reduce(_OVERSAMPLING), np.float32) / 255


def _paint(part: Part, own: npt.NDArray[np.floating]) -> Floats:
    shades = {"own": own, "dark": own * 0.7, "light": own * 0.75 + 255 * 0.25}
    return np.asarray(shades.get(part.colour, COLOURS.get(part.colour)), np.float32)
