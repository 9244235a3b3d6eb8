"""The results in `benchmarks/results/`, and the command that makes each."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelclip_sdk.support.files import atomic_write

__all__ = ["ACCURACIES", "COMMANDS", "RESULTS", "Results", "command_line", "store"]

RESULTS = Path(__file__).resolve().parents[1] / "results"
_ROOT = RESULTS.parents[1]

_JSON = "--json benchmarks/results"
COMMANDS = {
    "lite-latency": f"python benchmarks/latency.py --runs {{runs}} {_JSON}/lite-latency.json",
    "lite-video": f"python benchmarks/video.py --frames {{frames}} {_JSON}/lite-video.json",
    "compare-lite": f"python benchmarks/compare.py --case lite --rounds {{rounds}} {_JSON}/compare-lite.json",
    "compare-vit": f"python benchmarks/compare.py --case vit --rounds {{rounds}} {_JSON}/compare-vit.json",
    "gpu-latency": "make test-gpu",
    "roofline": f"python benchmarks/roofline.py --rounds {{rounds}} {_JSON}/roofline.json",
    "precision": (
        "python benchmarks/precision.py --photos PHOTOS --camvid CAMVID --named PHOTOS "
        f"{_JSON}/precision.json"
    ),
    "postprocess": f"python benchmarks/postprocess.py PHOTOS {_JSON}/postprocess.json",
    "scaling": (
        "python benchmarks/scaling.py --rounds {rounds} --camvid CAMVID --photos PHOTOS "
        f"{_JSON}/scaling.json"
    ),
}
"""Name of a result on docs/speed.md → what makes it. What it was called with is in the result."""

ACCURACIES = {
    "lite-photos": f"python benchmarks/photo_test.py PHOTOS {_JSON}/lite-photos.json",
    "lite-camvid-val": (
        "python training/evaluate.py --bundle pixelclip-lite --dataset camvid-11 --root CAMVID "
        f"--protocol whole {_JSON}/lite-camvid-val.json"
    ),
}
"""The same of the bundled model's accuracy, which docs/pixelclip-lite.md tells."""

_ALL = {**COMMANDS, **ACCURACIES}

_USUAL = {"runs": 200, "frames": 20000, "rounds": 30}


def store(path: Path, content: Mapping[str, Any]) -> None:
    """Write a result as JSON, with the command that this process was called with."""
    with atomic_write(path) as file:
        text = json.dumps({"command": command_line(sys.argv), **content}, indent=1, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")


def command_line(arguments: Sequence[str]) -> str:
    """A command for people: what lies in the checkout by its place there, other paths by what they are.

    ``--camvid /data/camvid`` becomes ``--camvid CAMVID``; paths without an option are ``PHOTOS``.

    Args:
        arguments: As in ``sys.argv``.
    """
    words: list[str] = ["python"]
    option = ""
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--") and equals:
            words.append(f"{flag}={_named(value, flag)}")
        elif argument.startswith("--"):
            option = argument
            words.append(argument)
            continue
        else:
            word = _named(argument, option)
            if word != "PHOTOS" or words[-1] != word:  # However many photos there were.
                words.append(word)
        option = ""
    return shlex.join(words)


def _named(text: str, option: str) -> str:
    path = Path(text)
    if not path.is_absolute() and not path.exists():
        return text  # A number or a name.
    full = path.resolve()
    if full.is_relative_to(_ROOT):
        return full.relative_to(_ROOT).as_posix()
    return option.removeprefix("--").upper().replace("-", "_") or "PHOTOS"


class Results:
    """Results of a folder; what is not there is None, and nothing is made up for it.

    Results of other processors are kept in folders of it, named after the processor.

    Args:
        folder: With ``NAME.json`` for the names in `COMMANDS` and `ACCURACIES`.

    Raises:
        ValueError: One is no JSON.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._content: dict[str, Any] = {}
        for name in _ALL:
            path = folder / f"{name}.json"
            if path.is_file():
                try:
                    self._content[name] = json.loads(path.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise ValueError(f"{path} cannot be read as JSON: {error}") from error

    def get(self, name: str) -> Any:
        """The content of a result, or None."""
        return self._content.get(name)

    def kept(self) -> dict[str, "Results"]:
        """Results of other processors: name → those that were kept."""
        folders = {path.parent for path in self._folder.glob("*/*.json") if path.stem in COMMANDS}
        return {folder.name: Results(folder) for folder in sorted(folders)}

    def command(self, name: str) -> str:
        """What makes a result: as it was called if it is there."""
        content = self._content.get(name) or {}
        if command := content.get("command"):
            return str(command)
        rows = [row for case in content.get("cases", []) for row in case.get("rows", [])]
        rounds = {"rounds": rows[0]["rounds"]} if rows else {}
        known = {key: content[key] for key in _USUAL if key in content}
        return _ALL[name].format_map(_USUAL | rounds | known)
