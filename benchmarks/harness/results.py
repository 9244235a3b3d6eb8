"""Results in `benchmarks/results/`: the command of each, loading, storing."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import environment
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"

_JSON = "--json benchmarks/results"
_DATA = "--camvid CAMVID --photos PHOTOS"
COMMANDS = {
    "lite-latency": f"python benchmarks/latency.py --runs 200 {_JSON}/lite-latency.json",
    "lite-video": f"python benchmarks/video.py --frames 20000 {_JSON}/lite-video.json",
    "compare-lite": f"python benchmarks/compare.py --case lite --rounds 30 {_JSON}/compare-lite.json",
    "compare-vit": f"python benchmarks/compare.py --case vit --rounds 30 {_JSON}/compare-vit.json",
    "gpu-latency": "make test-gpu",
    "roofline": f"python benchmarks/roofline.py --rounds 30 {_JSON}/roofline.json",
    "precision": f"python benchmarks/precision.py {_DATA} --named PHOTOS {_JSON}/precision.json",
    "postprocess": f"python benchmarks/postprocess.py PHOTOS {_JSON}/postprocess.json",
    "scaling": f"python benchmarks/scaling.py --rounds 30 {_DATA} {_JSON}/scaling.json",
}
"""Result on docs/speed.md → command. A stored result holds the command that made it."""

ACCURACIES = {
    "lite-photos": f"python benchmarks/photo_test.py PHOTOS {_JSON}/lite-photos.json",
    "lite-camvid-val": (
        "python training/evaluate.py --bundle pixelclip-lite --dataset camvid-11 --root CAMVID "
        f"--protocol whole {_JSON}/lite-camvid-val.json"
    ),
}
"""Accuracy of the bundled model, reported in docs/pixelclip-lite.md → command."""

DECISIONS = {
    "bag": f"python benchmarks/bag.py --videos VIDEOS {_JSON}/bag.json",
    "batch": f"python benchmarks/batch.py PHOTOS {_JSON}/batch.json",
    "engines-lite": f"python benchmarks/engines.py --case lite --rounds 40 {_JSON}/engines-lite.json",
    "gstreamer": f"python benchmarks/gstreamer.py VIDEO --rounds 7 {_JSON}/gstreamer.json",
    "refine": f"python benchmarks/refine.py --runs 6 {_JSON}/refine.json",
    "regions": f"python benchmarks/regions.py --runs 15 {_JSON}/regions.json",
    "serve": f"python benchmarks/serve.py {_JSON}/serve.json",
}
"""Result that a decision in docs/adr reports → command."""


def command_parser(doc: str | None, **counts: int) -> argparse.ArgumentParser:
    """Returns a parser with ``--json`` and ``--rounds`` or ``--runs``. `doc` is the module's docstring."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name, default in counts.items():
        about = f"timed {name} of each (default: {default})"
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N", help=about)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    return parser


def store(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write a result as JSON, with the command and the environment. None writes nothing."""
    if path is None:
        return
    facts = {**environment(), "threads": default_threads(), **content.get("environment", {})}
    if torch := sys.modules.get("torch"):
        facts["torch"] = torch.__version__
    result = {"command": command_line(sys.argv), **content, "environment": facts}
    with atomic_write(path) as file:
        file.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def command_line(arguments: Sequence[str]) -> str:
    """Returns the command of ``sys.argv`` without paths of this machine.

    Files of the checkout keep their relative path. Other paths become the option's name in capitals:
    ``--camvid /data/camvid`` → ``--camvid CAMVID``. Paths without an option become ``PHOTOS``.
    """
    words = ["python"]
    for argument in arguments:
        for word in argument.split("=", 1) if argument.startswith("--") else [argument]:
            portable = word if word.startswith("--") else _portable(word, words[-1])
            if portable != "PHOTOS" or words[-1] != portable:  # Several photos are written once.
                words.append(portable)
    return shlex.join(words)


def _portable(text: str, before: str) -> str:
    path = Path(text)
    if not path.is_absolute() and not path.exists():
        return text  # A number or a name.
    full = path.resolve()
    if full.is_relative_to(ROOT):
        return full.relative_to(ROOT).as_posix()
    return before.removeprefix("--").upper() if before.startswith("--") else "PHOTOS"


def read_result(path: Path) -> Any:
    """Returns a file's JSON; raises ValueError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error


def load_results(folder: Path) -> dict[str, Any]:
    """Returns name → content of the results in a folder, without those that do not exist."""
    paths = {name: folder / f"{name}.json" for name in (*COMMANDS, *ACCURACIES)}
    return {name: read_result(path) for name, path in paths.items() if path.is_file()}


def load_other_machines(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns subfolder's name → results of another machine."""
    loaded = {path.name: load_results(path) for path in sorted(folder.glob("*/"))}
    return {name: results for name, results in loaded.items() if results}


def command_of(results: Mapping[str, Any], name: str) -> str:
    """Returns the command that made a result, or the one that would make it."""
    return str(results.get(name, {}).get("command") or COMMANDS[name])
