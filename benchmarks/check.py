"""Did a measurement get worse? ``python benchmarks/check.py BEFORE.json AFTER.json``.

Both are results with a dict `ratios`: name → a number of which more is better, such as the speed against a
reference that was measured in the same run. Only those are compared: milliseconds of two days, or of two
machines, say little. Exit code 0: nothing got worse; 1: something did; 2: there is nothing to compare.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Comparison", "compare", "main", "read"]


@dataclass(frozen=True)
class Comparison:
    """What became of the ratios; names are sorted.

    Attributes:
        worse: Name → (before, after) of those that fell by more than the tolerance.
        kept: The same of the others that both results have.
        missing: Names that only the older result has.
        new: Names that only the newer one has.
    """

    worse: Mapping[str, tuple[float, float]]
    kept: Mapping[str, tuple[float, float]]
    missing: tuple[str, ...]
    new: tuple[str, ...]


def compare(before: Mapping[str, float], after: Mapping[str, float], tolerance: float) -> Comparison:
    """Compare ratios by name.

    Args:
        before: The older ones.
        after: The newer ones.
        tolerance: Share of the older ratio, 0–1, by which the newer may fall short.
    """
    both = {name: (before[name], after[name]) for name in sorted(before.keys() & after.keys())}
    worse = {name: pair for name, pair in both.items() if pair[1] < pair[0] * (1 - tolerance)}
    return Comparison(
        worse=worse,
        kept={name: pair for name, pair in both.items() if name not in worse},
        missing=tuple(sorted(before.keys() - after.keys())),
        new=tuple(sorted(after.keys() - before.keys())),
    )


def read(path: Path) -> tuple[dict[str, float], str]:
    """A result's ratios, and the processor it was measured on.

    Raises:
        ValueError: It cannot be read, has no ratios, or one is no positive number.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    found = content.get("ratios") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise ValueError(
            f'{path} has no "ratios"; expected a result of compare.py, roofline.py, scaling.py, …'
        )
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{path}: the ratio {name!r} is {value!r}; expected a positive number")
    return found, str(content.get("environment", {}).get("cpu", "unknown"))


def table(found: Comparison) -> str:
    """The comparison for people, what got worse first."""
    pairs = [("WORSE", *row) for row in found.worse.items()] + [("", *row) for row in found.kept.items()]
    lines = [
        f"{mark:<6}{before:9.3f} → {after:9.3f} {after / before - 1:+8.1%}  {name}"
        for mark, name, (before, after) in pairs
    ]
    lines += [f"missing in the newer result: {name}" for name in found.missing]
    lines += [f"new: {name}" for name in found.new]
    return "\n".join(lines)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="the older result")
    parser.add_argument("after", type=Path, help="the newer one")
    parser.add_argument(
        "--tolerance", type=float, default=0.2, help="share that a ratio may lose (default: %(default)s)"
    )
    options = parser.parse_args()
    if not 0 <= options.tolerance < 1:
        parser.error(f"--tolerance is {options.tolerance}; expected a share from 0 to below 1")
    try:
        (before, cpu_before), (after, cpu_after) = read(options.before), read(options.after)
    except ValueError as error:
        parser.error(str(error))
    found = compare(before, after, options.tolerance)
    if not (found.worse or found.kept):
        parser.error("the results have no ratio in common: they are of different benchmarks")
    if cpu_before != cpu_after:
        print(f"other processors, whose ratios may differ: {cpu_before}, now {cpu_after}")
    print(table(found))
    if found.worse:
        print(f"{len(found.worse)} of {len(before)} ratios fell by more than {options.tolerance:.0%}")
    return 1 if found.worse else 0


if __name__ == "__main__":
    sys.exit(main())
