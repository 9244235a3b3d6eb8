"""Plots of docs/speed.md: small PNGs, reproducible from the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from pixelclip_sdk.support.files import atomic_write

_OURS, _OTHERS = "#1f6fb4", "#b8bec6"
_CUT = 1.6  # Longer bars, in multiples of the reference, are cut.
_STYLE = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 8}
_PLOTS = {"compare-lite": "pixelclip-lite", "compare-vit": "ViT-B/16"}


def _compared(content: Any) -> Figure:
    """Bars of milliseconds per pipeline."""
    rows = [row for row in content["cases"][0]["rows"] if "ms" in row]
    end = _CUT * rows[0]["ms"]
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(rows) + 0.9), layout="constrained")
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


def draw(results: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Draw ``speed-NAME.png`` for results of `compare.py`; returns result → Markdown, relative to docs/."""
    drawn = {}
    with plt.rc_context(_STYLE):
        for name, model in _PLOTS.items():
            if name in results:
                figure = _compared(results[name])
                with atomic_write(folder / f"speed-{name}.png") as file:
                    figure.savefig(file, dpi=90, metadata={"Software": None})  # No version of matplotlib.
                plt.close(figure)
                drawn[name] = f"![Milliseconds of each pipeline with {model}](images/speed-{name}.png)"
    return drawn
