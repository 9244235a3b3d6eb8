"""Scores of the experiments as the tables of docs/results.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

__all__ = ["markdown"]

_COLUMNS = {
    "miou": "mIoU",
    "single_miou": "mIoU, one template",
    "stuff": "stuff",
    "things": "things",
    "pixel_accuracy": "pixel accuracy",
    "mask_miou": "mIoU, true masks",
    "image_top1": "whole image",
}
_GAINS = {"miou": "gain over CLIP", "single_miou": "gain, one template"}


def markdown(scores: Sequence[dict[str, Any]]) -> str:
    """Two tables: runs of all seeds with mean and deviation, and what was run with fewer.

    Args:
        scores: As `training.world.experiments.experiment` returns them.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for score in scores:
        groups.setdefault(score["run"], []).append(score)
    start = {score["seed"]: score for score in groups["CLIP"]}
    most = max(map(len, groups.values()))
    return "\n\n".join(
        _table({run: found for run, found in groups.items() if keep(len(found))}, start)
        for keep in (lambda n: n == most, lambda n: n < most)
        if any(keep(len(found)) for found in groups.values())
    )


def _table(groups: dict[str, list[dict[str, Any]]], start: dict[int, dict[str, Any]]) -> str:
    titles = [*_COLUMNS.values(), *_GAINS.values()]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for run, found in groups.items():
        cells = [_mean([score[key] for score in found]) for key in _COLUMNS]
        for key in _GAINS:
            gains = [100 * (score[key] / start[score["seed"]][key] - 1) for score in found]
            cells.append("" if run == "CLIP" else _mean(gains, "{:+.0f} %"))
        lines.append(f"| {run} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float], form: str = "{:.1f}") -> str:
    """Mean and sample standard deviation."""
    mean = form.format(statistics.fmean(values))
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
