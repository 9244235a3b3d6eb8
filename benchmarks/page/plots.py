"""Plots of docs/speed.md: small PNGs, reproducible from the results."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pixelclip_sdk.support.files import atomic_write

__all__ = ["PLOTS", "draw"]

_OURS, _OTHERS, _SECOND = "#1f6fb4", "#b8bec6", "#c46210"
_CUT = 1.6  # Longer bars, in multiples of the reference, are cut.
_STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "font.size": 8,
    "figure.constrained_layout.use": True,
}


def compared(content: Any) -> Figure:
    """Bars of milliseconds per pipeline."""
    rows = [row for row in content["cases"][0]["rows"] if "ms" in row]
    end = _CUT * rows[0]["ms"]
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(rows) + 0.9))
    bars = axes.barh(
        [row["name"] for row in rows],
        [min(row["ms"], end) for row in rows],
        color=[_OURS if row["name"].startswith("ours") else _OTHERS for row in rows],
    )
    axes.bar_label(bars, [f"{row['ms']:.1f}{', cut' * (row['ms'] > end)}" for row in rows], padding=2)
    axes.invert_yaxis()
    axes.set_xlim(0, end * 1.15)
    axes.set_xlabel("ms, from a JPEG's bytes to labels")
    return figure


def scaling(content: Any) -> Figure:
    """Milliseconds an image in every sweep, with peak memory or accuracy."""
    sweeps = content["sweeps"]
    rows = -(-len(sweeps) // 3)
    figure, panels = plt.subplots(rows, 3, figsize=(10, 2.7 * rows), squeeze=False)
    for axes, sweep in zip(panels.flat, sweeps, strict=False):
        names = [row["value"].replace(" ", "\n").replace("×", "×\n") for row in sweep["rows"]]
        line = "" if sweep["name"] == "together" else "-"  # Callers and videos are not one series.
        axes.plot(names, [row["ms"] for row in sweep["rows"]], f"o{line}", color=_OURS, ms=4)
        axes.set(title=sweep["name"], ylim=(0, None))
        axes.set_ylabel("ms an image", color=_OURS)
        scored = "miou" in sweep["rows"][0]
        values = [100 * row["miou"] if scored else row["peak_mb"] for row in sweep["rows"]]
        other = axes.twinx()
        other.plot(names, values, f"s{line * 2}", color=_SECOND, ms=3, lw=1)
        other.set_ylim(0, None)
        other.set_ylabel("mIoU, %" if scored else "peak MB", color=_SECOND)
    for axes in panels.flat[len(sweeps) :]:
        axes.remove()
    return figure


PLOTS: dict[str, tuple[str, str, Callable[[Any], Figure]]] = {
    "speed-compare-lite": ("compare-lite", "Milliseconds of each pipeline with pixelclip-lite", compared),
    "speed-compare-vit": ("compare-vit", "Milliseconds of each pipeline with ViT-B/16", compared),
    "speed-scaling": ("scaling", "Milliseconds an image in every sweep, with memory or accuracy", scaling),
}
"""Plot → result, alternative text, function."""


def draw(results: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Draw ``NAME.png`` for every result that exists; returns result → Markdown image, relative to docs/."""
    drawn = {}
    with plt.rc_context(_STYLE):
        for name, (result, text, plot) in PLOTS.items():
            if result in results:
                figure = plot(results[result])
                with atomic_write(folder / f"{name}.png") as file:
                    figure.savefig(file, dpi=90, metadata={"Software": None})  # No version of matplotlib.
                plt.close(figure)
                drawn[result] = f"![{text}](images/{name}.png)"
    return drawn
