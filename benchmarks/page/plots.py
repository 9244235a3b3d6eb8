"""The plots of docs/speed.md, small PNGs that are the same for the same results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.stored import Results
from pixelclip_sdk.support.files import atomic_write

__all__ = ["PLOTS", "draw"]

_OURS, _OTHERS, _FLOOR, _MORE = "#1f6fb4", "#b8bec6", "#222222", "#c46210"
# A bar longer than this many times the reference is cut, and says so.
_CUT = 1.6
_DPI = 90


def compared(content: Any) -> Figure:
    """Milliseconds of everybody in a comparison, ours in colour."""
    (case,) = content["cases"]
    rows = [row for row in case["rows"] if "ms" in row]
    end = _CUT * rows[0]["ms"]
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(rows) + 0.9), layout="constrained")
    for place, row in enumerate(rows):
        ours = row["name"].startswith("ours")
        axes.barh(place, min(row["ms"], end), color=_OURS if ours else _OTHERS)
        cut = row["ms"] > end
        axes.text(
            min(row["ms"], end),
            place,
            f"{row['ms']:.0f} ms, cut " if cut else f" {row['ms']:.1f}",
            ha="right" if cut else "left",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, end * 1.08)
    axes.set_xlabel("ms, from a JPEG's bytes to labels")
    _plain(axes)
    return figure


def floors(content: Any) -> Figure:
    """Milliseconds by kind of operator, with the floor of each as a line across its bar."""
    models = [model for model in content["models"] if model["operators"]]
    kinds = max(len(model["operators"]) for model in models)
    figure, panels = plt.subplots(
        1, len(models), figsize=(4.6 * len(models), 0.28 * kinds + 1.2), squeeze=False, layout="constrained"
    )
    for axes, model in zip(panels[0], models, strict=True):
        rows = model["operators"]
        places = range(len(rows))
        axes.barh(places, [row["ms"] for row in rows], color=_OURS)
        lows = [place - 0.4 for place in places]
        highs = [place + 0.4 for place in places]
        axes.vlines([row["floor_ms"] for row in rows], lows, highs, color=_FLOOR, lw=2, label="floor")
        axes.set_yticks(places, [row["kind"] for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(left=0)
        axes.set_title(model["name"], fontsize=10)
        axes.set_xlabel("ms a picture, by operator")
        axes.legend(frameon=False, loc="lower right", fontsize=8)
        _plain(axes)
    return figure


def scaling(content: Any) -> Figure:
    """Milliseconds a picture in every sweep; over them the memory, or for input sizes the accuracy."""
    sweeps = content["sweeps"]
    figure, panels = plt.subplots(
        -(-len(sweeps) // 3), min(len(sweeps), 3), figsize=(10, 2.7 * -(-len(sweeps) // 3)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, sweep in zip(panels.flat, sweeps, strict=False):
        rows = sweep["rows"]
        places = range(len(rows))
        # Callers and videos are two sorts of rows: no line leads from one to the other.
        line = "none" if sweep["name"] == "together" else "-"
        axes.plot(places, [row["ms"] for row in rows], "o", ls=line, color=_OURS, ms=4)
        axes.set_xticks(places, [_narrow(row["value"]) for row in rows], fontsize=7)
        axes.set_ylim(0, 1.08 * max(row["ms"] for row in rows))
        axes.set_title(sweep["name"], fontsize=10)
        axes.set_ylabel("ms a picture", color=_OURS, fontsize=8)
        scored = "miou" in rows[0]
        values = [100 * row["miou"] if scored else row["peak_mb"] for row in rows]
        other = axes.twinx()
        other.plot(places, values, "s", ls="none" if line == "none" else "--", color=_MORE, ms=3, lw=1)
        other.set_ylim(0, 1.08 * max(values))
        other.set_ylabel("mIoU, %" if scored else "peak MB", color=_MORE, fontsize=8)
        for side in (axes, other):
            side.spines["top"].set_visible(False)
            side.tick_params(axis="y", labelsize=7)
    for axes in list(panels.flat)[len(sweeps) :]:
        axes.remove()
    return figure


PLOTS: dict[str, tuple[str, Callable[[Any], Figure]]] = {
    "speed-compare-lite": ("compare-lite", compared),
    "speed-compare-vit": ("compare-vit", compared),
    "speed-floors": ("roofline", floors),
    "speed-scaling": ("scaling", scaling),
}
"""Name of a plot → the result it shows, and what draws it."""


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what there are results for, as ``NAME.png``; names of the plots that were drawn."""
    drawn = []
    for name, (result, make) in PLOTS.items():
        content = results.get(result)
        if content is None:
            continue
        figure = make(content)
        with atomic_write(folder / f"{name}.png") as file:
            # Without the version of what drew it.
            figure.savefig(file, dpi=_DPI, metadata={"Software": None})
        plt.close(figure)
        drawn.append(name)
    return drawn


def _narrow(value: str) -> str:
    """A row's name in two lines, so that neighbours do not touch."""
    return value.replace(" ", "\n").replace("×", "×\n")


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=8)
