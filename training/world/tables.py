"""Formats the scores of the experiments as the tables of docs/world.md."""

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
_GAINS = {"miou": "gain of the mean", "single_miou": "gain of the mean, one template"}


def markdown(scores: Sequence[dict[str, Any]]) -> str:
    """Return tables of the scores of `experiment`: over all seeds, by seed, and of runs with fewer seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for score in scores:
        groups.setdefault(score["run"], []).append(score)
    start = {score["seed"]: score for score in groups["CLIP"]}
    most = max(map(len, groups.values()))
    complete = {run: found for run, found in groups.items() if len(found) == most}
    others = {run: found for run, found in groups.items() if len(found) < most}
    tables = [_table(complete, start), _by_seed(complete), *([_table(others, start)] if others else [])]
    return "\n\n".join(tables)


def _table(groups: dict[str, list[dict[str, Any]]], start: dict[int, dict[str, Any]]) -> str:
    titles = [*_COLUMNS.values(), *_GAINS.values()]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for run, found in groups.items():
        cells = [_mean([score[key] for score in found]) for key in _COLUMNS]
        for key in _GAINS:
            # The gain of the means, because the mean of gains would be dominated by the worst CLIP.
            tuned = statistics.fmean(score[key] for score in found)
            clip = statistics.fmean(start[score["seed"]][key] for score in found)
            cells.append("" if run == "CLIP" else f"{100 * (tuned / clip - 1):+.0f} %")
        lines.append(f"| {run} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_seed(groups: dict[str, list[dict[str, Any]]]) -> str:
    """Return each seed's mIoU with both sets of templates, and PixelCLIP's gain over the seed's CLIP."""
    first, *_ = runs = [run for run in groups if run != "CLIP"]
    lines = [f"| seed | CLIP | {first} | gain | {' | '.join(runs[1:])} |"]
    lines.append("|---" * (len(runs) + 3) + "|")
    for key, templates in (("single_miou", "one template"), ("miou", "eight templates")):
        for score in groups["CLIP"]:
            seed, clip = score["seed"], score[key]
            found = {run: s[key] for run in runs for s in groups[run] if s["seed"] == seed}
            cells = [f"{found[run]:.1f}" for run in runs[1:]]
            gain = f"{100 * (found[first] / clip - 1):+.0f} %"
            lines.append(
                f"| {seed}, {templates} | {clip:.1f} | {found[first]:.1f} | {gain} | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation as text."""
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean
