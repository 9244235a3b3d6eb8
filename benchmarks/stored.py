"""The results in `benchmarks/results/`, and the command that makes each."""

import json
from pathlib import Path
from typing import Any

__all__ = ["COMMANDS", "RESULTS", "Results"]

RESULTS = Path(__file__).resolve().parent / "results"

_JSON = "--json benchmarks/results"
COMMANDS = {
    "lite-latency": f"python benchmarks/latency.py --runs {{runs}} {_JSON}/lite-latency.json",
    "lite-video": f"python benchmarks/video.py --frames {{frames}} {_JSON}/lite-video.json",
    "compare-lite": f"python benchmarks/compare.py --case lite --rounds {{rounds}} {_JSON}/compare-lite.json",
    "compare-vit": f"python benchmarks/compare.py --case vit --rounds {{rounds}} {_JSON}/compare-vit.json",
    "gpu-latency": "make test-gpu",
    "roofline": f"python benchmarks/roofline.py --rounds {{rounds}} {_JSON}/roofline.json",
    "precision": f"python benchmarks/precision.py --photos PHOTOS {_JSON}/precision.json",
    "postprocess": f"python benchmarks/postprocess.py PHOTOS {_JSON}/postprocess.json",
    "scaling": (
        "python benchmarks/scaling.py --rounds {rounds} --camvid CAMVID --photos PHOTOS "
        f"{_JSON}/scaling.json"
    ),
}
"""Name of a result → what makes it. What it was called with is in the result."""

_USUAL = {"runs": 200, "frames": 20000, "rounds": 30}


class Results:
    """Results of a folder; what is not there is None, and nothing is made up for it.

    Args:
        folder: With ``NAME.json`` for the names in `COMMANDS`.

    Raises:
        ValueError: One is no JSON.
    """

    def __init__(self, folder: Path) -> None:
        self._content: dict[str, Any] = {}
        for name in COMMANDS:
            path = folder / f"{name}.json"
            if path.is_file():
                try:
                    self._content[name] = json.loads(path.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise ValueError(f"{path} cannot be read as JSON: {error}") from error

    def get(self, name: str) -> Any:
        """The content of a result, or None."""
        return self._content.get(name)

    def command(self, name: str) -> str:
        """What makes a result: as it was called if it is there."""
        content = self._content.get(name) or {}
        rows = [row for case in content.get("cases", []) for row in case.get("rows", [])]
        rounds = {"rounds": rows[0]["rounds"]} if rows else {}
        known = {key: content[key] for key in _USUAL if key in content}
        return COMMANDS[name].format_map(_USUAL | rounds | known)
