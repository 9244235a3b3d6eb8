import json

import pytest

from benchmarks import refine
from benchmarks.harness.photos import PHOTOS


def test_the_command_writes_ratios_that_can_be_checked(tmp_path, monkeypatch, capsys):
    out = tmp_path / "refine.json"
    monkeypatch.setattr(refine, "_CASES", ((5, 120, 160),))
    photo = str(PHOTOS / "coffee.jpg")
    monkeypatch.setattr("sys.argv", ["refine.py", photo, "--runs", "1", "--json", str(out)])
    assert refine.main() == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    (case,) = result["cases"]
    assert result["ratios"] == {
        "5 classes, 160×120: interpolation over refinement": pytest.approx(case["off_ms"] / case["edges_ms"])
    }
    assert 0.02 < case["peak_mb"] < 20  # At least the brightness of every pixel.
    assert "5 classes, 160×120" in capsys.readouterr().out
