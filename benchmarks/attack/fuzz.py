"""Reads damaged files of every kind, as many as fit into the time, and counts what is no error of the tree.

A fault is an error outside of PixelClipError, a crash, a hang, more than a second of a CPU or more than 1 GB
for one file. To see a fault again: ``python benchmarks/attack/fuzz.py --again KIND NUMBER``.

With `atheris` installed, ``--guided`` lets it choose the changes by the Python code that they reach.
"""

import argparse
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.attack.child import damaged_file, read_one
from benchmarks.attack.seeds import seeds
from benchmarks.attack.targets import TARGETS
from benchmarks.harness.results import ROOT, command_parser, store
from pixelclip_sdk.support.command import run_command

__all__ = ["attack", "run_child"]

# Files of one child: loading libraries takes as long as some thousand files. Slow kinds have smaller pieces.
_PIECE = 20_000
_SLOW = {"video": 1000, **dict.fromkeys(("settings", "graph", "tokenizer", "checkpoint"), 5000)}
_SLOW |= dict.fromkeys(("mcap", "sqlite", "ros1", "bag", "parquet"), 5000)
_GUIDED_S = 30
# Each file is written before it is read: in memory, where the system has such a folder.
_FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def attack(pieces: Iterable[tuple[str, int, int]], *, seed: int, jobs: int) -> dict[str, dict[str, Any]]:
    """Reads damaged files in child processes.

    Args:
        pieces: Kind, number of the first file, and count of files.
        seed: Of all random changes.
        jobs: Children at the same time.

    Returns:
        Kind → the sums of what `child` reports; crashes and hangs are among the ``faults``.
    """
    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for kind, report in pool.map(lambda piece: (piece[0], run_child(*piece, seed=seed)), pieces):
            found[kind] = _sum(found[kind], report) if kind in found else report
    return found


def _sum(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {k: max(v, other[k]) if k.startswith("most") else v + other[k] for k, v in one.items()}


def run_child(kind: str, first: int, count: int, *, seed: int) -> dict[str, Any]:
    """Reads one piece. After a crash the rest of the piece is read by another child."""
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        arguments = map(str, (kind, first, count, seed, folder))
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.attack.child", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode == 0:
            return dict(json.loads(result.stdout))
        current = Path(folder, "current")
        number = int(current.read_text(encoding="ascii")) if current.exists() else first
    code = result.returncode
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    fault = {"number": number, "error": f"{reason} {result.stderr[-1000:]}"}
    report = {"read": 0, "refused": 0, "fault": 1, "faults": [fault], "most_cpu_s": 0.0, "most_mb": 0.0}
    # What the child read before the crash is read again, because its report is lost.
    for start, some in ((first, number - first), (number + 1, first + count - number - 1)):
        if some > 0:
            report = _sum(report, run_child(kind, start, some, seed=seed))
    return report


def _pieces(kinds: Sequence[str], end: float) -> Iterable[tuple[str, int, int]]:
    for turn in itertools.count():
        for kind in kinds:
            if time.monotonic() > end:
                return
            count = _SLOW.get(kind, _PIECE)
            yield kind, turn * count, count


def _attack_for(
    kinds: Sequence[str], minutes: float, seed: int, jobs: int
) -> Iterator[dict[str, dict[str, Any]]]:
    """Like `attack`, until the time is over. Yields what was found so far, after every few pieces."""
    found: dict[str, dict[str, Any]] = {}
    pieces = iter(_pieces(kinds, time.monotonic() + 60 * minutes))
    while some := list(itertools.islice(pieces, jobs)):
        for kind, report in attack(some, seed=seed, jobs=jobs).items():
            found[kind] = _sum(found[kind], report) if kind in found else report
        yield found


def _guided(kind: str, seconds: float) -> dict[str, Any]:
    """Lets atheris attack one kind. Returns how many files it tried, and its message if it found a fault."""
    with tempfile.TemporaryDirectory() as folder:
        for i, content in enumerate(seeds(kind)):
            Path(folder, f"seed-{i}").write_bytes(content)
        result = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.attack.guided",
                kind,
                folder,
                f"-max_total_time={seconds:.0f}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    tried = re.search(r"stat::number_of_executed_units: (\d+)", result.stderr)
    covered = re.findall(r"cov: (\d+)", result.stderr)
    return {
        "tried": int(tried[1]) if tried else 0,
        "covered": int(covered[-1]) if covered else 0,
        "fault": "" if result.returncode == 0 else (result.stdout + result.stderr)[-3000:],
    }


def _options() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=int, default=2, help="processes at the same time (default: %(default)s)"
    )
    parser.add_argument("--kinds", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="KIND")
    parser.add_argument("--guided", action="store_true", help="let atheris choose the changes")
    parser.add_argument("--again", nargs=2, metavar=("KIND", "NUMBER"), help="read one damaged file again")
    return parser.parse_args()


def _run() -> int:
    options = _options()
    if options.again:
        kind, number = options.again[0], int(options.again[1])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"file{TARGETS[kind].suffix}")
            file.write_bytes(damaged_file(kind, number, options.seed))
            print(json.dumps(read_one(kind, file), indent=1))
        return 0
    start = time.monotonic()

    def stored(found: dict[str, dict[str, Any]], total: int, faults: int) -> int:
        facts = {"seed": options.seed, "minutes": round((time.monotonic() - start) / 60, 2), "files": total}
        result = {**facts, "faults": faults, "kinds": found}
        store(options.json, result)
        print(json.dumps(result, indent=1), flush=True)
        return 1 if faults else 0

    if options.guided:
        each = max(60 * options.minutes / len(options.kinds) * options.jobs, _GUIDED_S)
        with ThreadPoolExecutor(options.jobs) as pool:
            reports = list(pool.map(lambda kind: _guided(kind, each), options.kinds))
        found = dict(zip(options.kinds, reports, strict=True))
        return stored(found, sum(one["tried"] for one in reports), sum(bool(one["fault"]) for one in reports))
    code = 0
    for found in _attack_for(options.kinds, options.minutes, options.seed, options.jobs):
        sums = found.values()
        total = sum(one["read"] + one["refused"] + one["fault"] for one in sums)
        code = stored(found, total, sum(one["fault"] for one in sums))
    return code


if __name__ == "__main__":
    sys.exit(run_command("fuzz", _run, interrupted="the result has what was finished before"))
