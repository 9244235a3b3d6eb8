"""All measurements, one after another: ``python benchmarks/all.py --photos DIR --camvid DIR``.

Runs the commands of `benchmarks.harness.stored` but those for GPUs, says which ratios fell beside the results
that were there, and writes docs/speed.md. The machine should have nothing else to do meanwhile.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness.stored import ACCURACIES, COMMANDS, RESULTS, Results

__all__ = ["commands", "main"]

_ROOT = RESULTS.parents[1]
_GPU = "gpu-latency"


def commands(places: Mapping[str, Path], python: str = sys.executable) -> dict[str, list[str]]:
    """Result → the command that makes it here.

    Args:
        places: ``PHOTOS`` and ``CAMVID`` → folder.
        python: The interpreter.
    """
    usual = Results(_ROOT / "nowhere")  # Without results: the usual numbers of runs.
    made = {}
    for name in (*COMMANDS, *ACCURACIES):
        if name != _GPU:
            words = [str(places.get(word, word)) for word in shlex.split(usual.command(name))]
            made[name] = [python, *words[1:]]
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 if a command failed or a ratio fell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="photos named after things")
    parser.add_argument("--camvid", type=Path, required=True, metavar="DIR", help="see docs/evaluation.md")
    names = [name for name in (*COMMANDS, *ACCURACIES) if name != _GPU]  # That is `make test-gpu`.
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="these results alone")
    options = parser.parse_args(arguments)
    worse = []
    places = {"PHOTOS": options.photos.resolve(), "CAMVID": options.camvid.resolve()}
    for name, command in commands(places).items():
        if options.only and name not in options.only:
            continue
        path = RESULTS / f"{name}.json"
        before = path.read_bytes() if path.is_file() else b""
        print(f"\n{name}: {shlex.join(command)}", flush=True)
        if subprocess.run(command, cwd=_ROOT).returncode:
            worse.append(f"{name}: the command failed")
        elif before and not _checked(path, before):
            worse.append(f"{name}: ratios fell, see above")
    report = subprocess.run([sys.executable, "benchmarks/report.py"], cwd=_ROOT)
    print("\n".join(["", *worse]))
    return 1 if worse or report.returncode else 0


def _checked(path: Path, before: bytes) -> bool:
    """Whether no ratio fell; results from before ratios were kept have none to compare."""
    older = path.with_suffix(".before.json")
    older.write_bytes(before)
    try:
        check = [sys.executable, "benchmarks/check.py", str(older), str(path)]
        return subprocess.run(check, cwd=_ROOT).returncode != 1
    finally:
        older.unlink()


if __name__ == "__main__":
    sys.exit(main())
