"""Run all benchmarks but those for GPUs: ``python benchmarks/all.py --photos DIR --camvid DIR``.

Every new result is compared with the stored one by check.py; report.py then writes docs/speed.md. The
machine should be idle otherwise.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.check import got_worse
from benchmarks.harness.results import ACCURACIES, COMMANDS, DECISIONS, RESULTS, ROOT
from pixelclip_sdk.support.command import run_command

_MADE = COMMANDS | ACCURACIES | DECISIONS
_ALL = {name: command for name, command in _MADE.items() if name != "gpu-latency"}


def commands(folders: Mapping[str, Path], python: str = sys.executable) -> dict[str, list[str]]:
    """Returns result → command line, with a folder for each placeholder: ``PHOTOS`` and ``CAMVID``."""
    return {
        name: [python, *(str(folders.get(word, word)) for word in shlex.split(command)[1:])]
        for name, command in _ALL.items()
    }


def main() -> int:
    """Run the command; return 1 if a benchmark failed or a ratio got worse."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="see photo_test.py")
    parser.add_argument("--camvid", type=Path, required=True, metavar="DIR", help="see docs/evaluation.md")
    parser.add_argument("--only", nargs="+", choices=_ALL, default=list(_ALL), metavar="NAME", help="results")
    options = parser.parse_args()
    folders = {"PHOTOS": options.photos.resolve(), "CAMVID": options.camvid.resolve()}
    failures = []
    for name, command in commands(folders).items():
        if name in options.only:
            print(f"\n{name}: {shlex.join(command)}", flush=True)
            if problem := _run(RESULTS / f"{name}.json", command):
                failures.append(f"{name}: {problem}")
    report = subprocess.run([sys.executable, "benchmarks/report.py"], cwd=ROOT)
    print("\n".join(["", *failures]))
    return 1 if failures or report.returncode else 0


def _run(path: Path, command: list[str]) -> str:
    """Run a command and compare its result with the stored one; returns the problem or an empty string."""
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before.json"
        if path.is_file():
            shutil.copy(path, before)
        if subprocess.run(command, cwd=ROOT).returncode:
            return "the command failed"
        try:
            return "ratios got worse, see above" if before.is_file() and got_worse(before, path) else ""
        except ValueError:  # Results of accuracy have no ratios.
            return ""


if __name__ == "__main__":
    sys.exit(run_command("all", main))
