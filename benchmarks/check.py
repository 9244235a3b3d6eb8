"""Compare the ratios of two results: ``python benchmarks/check.py BEFORE.json AFTER.json``.

Each result has a dict `ratios`: name → number, where more is better, such as the speed against a reference
of the same run. Absolute times of different days or machines are not compared. Exit code 0: no ratio got
worse; 1: at least one did; 2: there is nothing to compare.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness.results import read_result
from benchmarks.harness.tables import table
from pixelclip_sdk.support.command import run_command

TOLERANCE = 0.2  # Allowed loss as a share of the older ratio.


def _ratios(path: Path, content: Any) -> dict[str, float]:
    ratios = content.get("ratios") if isinstance(content, dict) else None
    if not isinstance(ratios, dict) or not ratios:
        raise ValueError(
            f'{path} has no "ratios"; expected a result of compare.py, roofline.py, scaling.py, …'
        )
    for name, value in ratios.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{path}: the ratio {name!r} is {value!r}; expected a positive number")
    return ratios


def got_worse(before: Path, after: Path, tolerance: float = TOLERANCE) -> bool:
    """Print a table of both results' ratios; return whether one fell by more than the tolerance.

    Raises:
        ValueError: A file cannot be read or has no ratios, or the results have no ratio in common.
    """
    old, new = read_result(before), read_result(after)
    older, newer = _ratios(before, old), _ratios(after, new)
    both = older.keys() & newer
    if not both:
        raise ValueError("the results have no ratio in common: they are of different benchmarks")
    cpus = [str(content.get("environment", {}).get("cpu", "unknown")) for content in (old, new)]
    if cpus[0] != cpus[1]:
        print(f"different processors, ratios may differ: {cpus[0]}, now {cpus[1]}")
    fallen = [name for name in sorted(both) if newer[name] < older[name] * (1 - tolerance)]
    rows = [
        {
            "name": name,
            "before": f"{older[name]:.3f}",
            "after": f"{newer[name]:.3f}",
            "change": f"{newer[name] / older[name] - 1:+.1%}",
            "": "WORSE" if name in fallen else "",
        }
        for name in [*fallen, *sorted(both - {*fallen})]
    ]
    print(table(rows))
    for text, names in (("missing in the newer result", older.keys() - both), ("new", newer.keys() - both)):
        for name in sorted(names):
            print(f"{text}: {name}")
    if fallen:
        print(f"{len(fallen)} of {len(older)} ratios fell by more than {tolerance:.0%}")
    return bool(fallen)


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="older result")
    parser.add_argument("after", type=Path, help="newer result")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        help="allowed loss, 0–1 (default: %(default)s)",
    )
    options = parser.parse_args()
    if not 0 <= options.tolerance < 1:
        parser.error(f"--tolerance is {options.tolerance}; expected a share from 0 to below 1")
    try:
        return int(got_worse(options.before, options.after, options.tolerance))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    sys.exit(run_command("check", main))
