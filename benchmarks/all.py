"""Run all benchmarks but those for GPUs: ``python benchmarks/all.py --photos DIR --camvid DIR``.

Every new result is compared with the stored one by check.py; report.py then writes docs/speed.md. The
machine should be idle otherwise.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.results import ACCURACIES, COMMANDS, RESULTS, ROOT
from pixelclip_sdk.support.command import run_command

__all__ = ["commands", "main"]

_ALL = {name: command for name, command in (COMMANDS | ACCURACIES).items() if name != "gpu-latency"}


def commands(folders: Mapping[str, Path], python: str = sys.executable) -> dict[str, list[str]]:
    """Returns result → command line.

    Args:
        folders: Folder of each placeholder: ``PHOTOS`` and ``CAMVID``.
        python: The interpreter.
    """
    return {
        name: [python, *(str(folders.get(word, word)) for word in shlex.split(command)[1:])]
        for name, command in _ALL.items()
    }


def main() -> int:
    """Run the command; return 1 if a benchmark failed or a ratio got worse."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="see photo_test.py")
    parser.add_argument("--camvid", type=Path, required=True, metavar="DIR", help="see docs/evaluation.md")
    parser.add_argument(
        "--only", nargs="+", choices=_ALL, default=list(_ALL), metavar="NAME", help="results to make"
    )
    options = parser.parse_args()
    folders = {"PHOTOS": options.photos.resolve(), "CAMVID": options.camvid.resolve()}
    failures = []
    for name, command in commands(folders).items():
        if name not in options.only:
            continue
        path = RESULTS / f"{name}.json"
        before = path.read_bytes() if path.is_file() else b""
        print(f"\n{name}: {shlex.join(command)}", flush=True)
        if subprocess.run(command, cwd=ROOT).returncode:
            failures.append(f"{name}: the command failed")
        elif before and _got_worse(path, before):
            failures.append(f"{name}: ratios got worse, see above")
    report = subprocess.run([sys.executable, "benchmarks/report.py"], cwd=ROOT)
    print("\n".join(["", *failures]))
    return 1 if failures or report.returncode else 0


def _got_worse(path: Path, before: bytes) -> bool:
    """Whether check.py found a worse ratio. Results without ratios are not compared."""
    older = path.with_suffix(".before.json")
    older.write_bytes(before)
    try:
        check = [sys.executable, "benchmarks/check.py", str(older), str(path)]
        return subprocess.run(check, cwd=ROOT).returncode == 1
    finally:
        older.unlink()


if __name__ == "__main__":
    sys.exit(run_command("all", main))
