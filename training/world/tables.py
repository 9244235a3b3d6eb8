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


def markdown(scores: Sequence[dict[str, Any]]) -> str:
    """Two tables: runs of all seeds with mean and deviation, and what was run with fewer.

    Args:
        scores: As `training.world.experiments.experiment` returns them.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for score in scores:
        groups.setdefault(score["run"], []).append(score)
    start = {score["seed"]: score["miou"] for score in groups["CLIP"]}
    most = max(map(len, groups.values()))
    return "\n\n".join(
        _table({run: found for run, found in groups.items() if keep(len(found))}, start)
        for keep in (lambda n: n == most, lambda n: n < most)
        if any(keep(len(found)) for found in groups.values())
    )


def _table(groups: dict[str, list[dict[str, Any]]], start: dict[int, float]) -> str:
    lines = [f"| | {' | '.join(_COLUMNS.values())} | gain over CLIP |", "|---" * (len(_COLUMNS) + 2) + "|"]
    for run, found in groups.items():
        cells = [_mean([score[key] for score in found]) for key in _COLUMNS]
        gains = [100 * (score["miou"] / start[score["seed"]] - 1) for score in found]
        lines.append(
            f"| {run} | {' | '.join(cells)} | {'' if run == 'CLIP' else _mean(gains, '{:+.0f} %')} |"
        )
    return "\n".join(lines)


def _mean(values: Sequence[float], form: str = "{:.1f}") -> str:
    """Mean and sample standard deviation."""
    mean = form.format(statistics.fmean(values))
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
