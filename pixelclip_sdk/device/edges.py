"""Labels along the edges of the frame on a GPU: `refine.refine_edges`, equal but for rounding.

The kernels of `edges.cu` are its steps. What depends on the frame is made on the stream of its slot, so the
frame may be overwritten early. The rest follows the model on its stream, in buffers that all frames share.
"""

import math
from typing import Any, NamedTuple

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device.kept import Kept
from pixelclip_sdk.device.kernels import Kernels, Pixels
from pixelclip_sdk.device.slots import Buffers, Slot
from pixelclip_sdk.device.tables import ROWS, Resize, Upsample
from pixelclip_sdk.postprocess import covered_cells
from pixelclip_sdk.refine import COLOUR, FLAT, NEGLIGIBLE, STEPS, TEMPERATURE, WEIGHT, Layout, places

__all__ = ["EDGE_KERNELS", "Edges", "Grid"]

# The arguments of the kernels; see `Kernels.start`.
_ARGUMENTS = {
    "affinity": "pp" "if" "p",
    "peak": "piiii" "pi" "p",
    "keep": "piiii" "pi" "p" "ff" "p",
    "total": "piiii" "pi" "p" "f" "pp",
    "prior": "piii" "pi" "p" "f" "pp" "pppppp" "ii" "pp",
    "consult": "pppp" "ii" "f" "pp",
    "decide": "pp" "ii" "pp",
    "gather": "pii" "pp",
    "spread": "pii" "ppp" "pppppp" "ii" "pp",
    "average": "ppp" "iiii" "pp",
    "fit": "ppp" "iii" "f" "pp",
    "trace": "pp" "ii" "ppp" "p" "pppppp" "ii" "pf" "iii" "p",
}  # fmt: skip
EDGE_KERNELS = tuple(_ARGUMENTS)
"""Names of the kernels of `edges.cu`."""

Size = tuple[int, int]


class Grid(NamedTuple):
    """Logits on the GPU, and what competes.

    Attributes:
        address: Of `(K, h, w)` float32.
        size: `(h, w)`.
        covered: Fractions of it that the frame covers.
        classes: Address of the rows that compete, int32, ascending.
        competing: Their number.
    """

    address: int
    size: Size
    covered: tuple[float, float]
    classes: int
    competing: int


class Edges:
    """Replaces labels by labels along edges. The caller holds the engine's lock.

    Args:
        cuda: The GPU.
        kernels: The kernels, also those of `EDGE_KERNELS`.
        tables: The pipeline's tables.
    """

    def __init__(self, cuda: Cuda, kernels: Kernels, tables: Kept) -> None:
        self._kernels, self._tables = kernels, tables
        self._shared = Buffers(cuda)

    def read(self, pixels: Pixels, size: Size, slot: Slot) -> None:
        """Start to make what labels along edges need of a frame `(H, W)`, on the slot's stream."""
        layout = Layout.of(size)
        if layout.is_strip:
            return
        (height, width), (r, c) = layout.small, layout.points
        small = slot.device("small", height * width * 3)
        table, rows, columns = self._tables.resize(("small", size), lambda: Resize.reduced(size, layout.step))
        self._kernels.resize(pixels, table, rows, columns, small, slot.stream)
        colours = slot.device("colours", r * c * 3)
        table, rows, columns = self._tables.resize(
            ("colours", size), lambda: Resize.box(layout.small, layout.points)
        )
        little = Pixels(small, width * 3, 3, (0, 1, 2))
        self._kernels.resize(little, table, rows, columns, colours, slot.stream)
        where = self._tables.array(("places", size), lambda: places(r, c, height / width))
        alike = slot.device("affinity", (r * c) ** 2 * 4)
        self._run("affinity", (r * c, r * c), (colours, where, r * c, COLOUR, alike), slot.stream)
        guide = slot.device("guide", size[0] * size[1])
        self._kernels.grey(pixels, size, guide, slot.stream)

    def relabel(
        self,
        grid: Grid,
        size: Size,
        slot: Slot,
        *,
        scores: int,
        threshold: float | None,
        names: int,
        unknown: int,
        labels: int,
        stream: Any,
    ) -> None:
        """Start to write labels along edges, after `read`, and after `Kernels.label` with the same arguments.

        Args:
            grid: The logits.
            size: `(H, W)` of the labels.
            slot: The frame's.
            scores: Address of what `Kernels.label` wrote, `(H, W)` float32.
            threshold: Pixels whose score is below it are unknown; None for no threshold.
            names: Winners from this row on are unknown.
            unknown: The label of these pixels.
            labels: Address of `(H, W)` uint8, or uint16 if `unknown` is above 255.
            stream: The engine's stream.
        """
        layout = Layout.of(size)
        if layout.is_strip:
            return
        (r, c), (height, width) = layout.points, layout.small
        # At each point, one class wins.
        points, most = r * c, min(r * c, grid.competing)
        chance = self._shared.get("chance", grid.competing * points * 4)
        winners, found = self._shared.get("winners", most * 4), self._shared.get("found", 4)
        self._agree(grid, layout, slot, chance, winners, found, stream)

        planes = (most + 1) * height * width * 4
        plain, lit, plain_mean, lit_mean = (
            self._shared.get(name, planes) for name in ("plain", "lit", "plain mean", "lit mean")
        )
        rows, columns = self._tables.upsample(
            ("spread", size), lambda: Upsample.of(layout.points, (1.0, 1.0), layout.small)
        )
        area, all_planes = height * width, (most + 1, height * width)
        image = slot.device("small", area * 3)
        given: tuple[Any, ...] = (chance, points, c, winners, found, image, *rows, *columns, height, width)
        self._run("spread", all_planes, (*given, plain, lit), stream)
        spans = grid.size[0] * grid.covered[0], grid.size[1] * grid.covered[1]
        window = found, height, width, layout.radius(spans)
        self._run("average", all_planes, (plain, lit, *window, 0, plain_mean, lit_mean), stream)
        # From here on, `plain` has slopes and `lit` offsets.
        self._run("fit", (most, area), (plain_mean, lit_mean, *window, FLAT, plain, lit), stream)
        self._run("average", all_planes, (plain, lit, *window, 0, plain_mean, lit_mean), stream)
        self._run("average", all_planes, (plain_mean, lit_mean, *window, 1, plain, lit), stream)

        rows, columns = self._tables.upsample(
            ("trace", size), lambda: Upsample.between(layout.small, layout.step, size)
        )
        least = -math.inf if threshold is None else threshold
        guide = slot.device("guide", size[0] * size[1])
        given = (plain, lit, height, width, winners, found, grid.classes, guide, *rows, *columns, *size)
        limits = (scores, least, names, unknown, int(unknown > 255))
        self._run("trace", size, (*given, *limits, labels), stream, ROWS)

    def close(self) -> None:
        """Free the shared buffers."""
        self._shared.close()

    def _agree(
        self, grid: Grid, layout: Layout, slot: Slot, chance: int, winners: int, found: int, stream: Any
    ) -> None:
        """Start to write the probabilities at the points that agree, and which classes win at one."""
        points, columns_there = math.prod(layout.points), layout.points[1]
        inside = covered_cells(grid.size, grid.covered)
        height, width = (len(range(side)[part]) for side, part in zip(grid.size, inside, strict=True))
        area, count = height * width, grid.competing
        # One for each class, each point of the grid, and each class at each point that agrees.
        kept, won = (self._shared.get(name, count * 4) for name in ("kept", "won"))
        top, sums = (self._shared.get(name, area * 4) for name in ("top", "sums"))
        evidence, opinion = (self._shared.get(name, count * points * 4) for name in ("evidence", "opinion"))
        rows, columns = self._tables.upsample(
            ("prior", grid.size, grid.covered, layout.points),
            lambda: Upsample.of(grid.size, grid.covered, layout.points),
        )
        start = (grid.address, grid.size[0] * grid.size[1], grid.size[1], width)
        classes = (grid.classes, count)
        self._run("peak", (1, area), (*start, area, *classes, top), stream)
        kept_if = (TEMPERATURE, math.log(NEGLIGIBLE), kept)
        self._run("keep", (1, count), (*start, area, *classes, top, *kept_if), stream)
        self._run("total", (1, area), (*start, area, *classes, top, TEMPERATURE, kept, sums), stream)
        odds = (*start, *classes, top, TEMPERATURE, kept, sums)
        values = (*odds, *rows, *columns, points, columns_there, chance, evidence)
        self._run("prior", (count, points), values, stream)
        alike = slot.device("affinity", points**2 * 4)
        for _ in range(STEPS):
            heard = (chance, evidence, alike, kept, count, points, WEIGHT, opinion, won)
            self._run("consult", (count, points), heard, stream)
            self._run("decide", (1, points), (opinion, kept, count, points, chance, won), stream)
        self._run("gather", (1, count), (won, count, min(points, count), winners, found), stream)

    def _run(self, name: str, size: Size, values: tuple[Any, ...], stream: Any, rows: int = 1) -> None:
        self._kernels.start(name, size, values, _ARGUMENTS[name], stream, rows)
