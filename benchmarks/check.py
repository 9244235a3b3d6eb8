"""Compare the ratios of two results: ``python benchmarks/check.py BEFORE.json AFTER.json``.

Each result has a dict `ratios`: name → number, where more is better, such as the speed against a reference
of the same run. Absolute times of different days or machines are not compared. Exit code 0: no ratio got
worse; 1: at least one did; 2: there is nothing to compare.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.tables import table
from pixelclip_sdk.support.command import run_command

__all__ = ["main", "read_ratios", "worse"]


def read_ratios(path: Path) -> tuple[dict[str, float], str]:
    """Returns a result's ratios and the processor it was measured on.

    Raises:
        ValueError: The file cannot be read or has no ratios, or a ratio is not a positive number.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    ratios = content.get("ratios") if isinstance(content, dict) else None
    if not isinstance(ratios, dict) or not ratios:
        raise ValueError(
            f'{path} has no "ratios"; expected a result of compare.py, roofline.py, scaling.py, …'
        )
    for name, value in ratios.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{path}: the ratio {name!r} is {value!r}; expected a positive number")
    return ratios, str(content.get("environment", {}).get("cpu", "unknown"))


def worse(before: Mapping[str, float], after: Mapping[str, float], tolerance: float) -> list[str]:
    """Returns the sorted names of ratios that fell by more than the tolerance.

    Args:
        before: Name → older ratio.
        after: Name → newer ratio.
        tolerance: Allowed loss as a share of the older ratio, 0–1.
    """
    return [name for name in sorted(before.keys() & after) if after[name] < before[name] * (1 - tolerance)]


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path, help="older result")
    parser.add_argument("after", type=Path, help="newer result")
    parser.add_argument(
        "--tolerance", type=float, default=0.2, help="allowed loss of a ratio, 0–1 (default: %(default)s)"
    )
    options = parser.parse_args()
    if not 0 <= options.tolerance < 1:
        parser.error(f"--tolerance is {options.tolerance}; expected a share from 0 to below 1")
    try:
        (before, cpu_before), (after, cpu_after) = read_ratios(options.before), read_ratios(options.after)
    except ValueError as error:
        parser.error(str(error))
    both = before.keys() & after
    if not both:
        parser.error("the results have no ratio in common: they are of different benchmarks")
    if cpu_before != cpu_after:
        print(f"different processors, ratios may differ: {cpu_before}, now {cpu_after}")
    fallen = worse(before, after, options.tolerance)
    rows = [
        {
            "name": name,
            "before": f"{before[name]:.3f}",
            "after": f"{after[name]:.3f}",
            "change": f"{after[name] / before[name] - 1:+.1%}",
            "": "WORSE" if name in fallen else "",
        }
        for name in [*fallen, *sorted(both - {*fallen})]
    ]
    print(table(rows))
    for text, names in (("missing in the newer result", before.keys() - both), ("new", after.keys() - both)):
        print("".join(f"{text}: {name}\n" for name in sorted(names)), end="")
    if fallen:
        print(f"{len(fallen)} of {len(before)} ratios fell by more than {options.tolerance:.0%}")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(run_command("check", main))
