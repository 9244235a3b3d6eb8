"""benchmarks/regions.py."""

import json
from pathlib import Path

import numpy as np
import pytest

import benchmarks.regions
from benchmarks.regions import compare, main, reference_count
from pixelclip_sdk import PixelClipError

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "coffee.jpg"


def test_components_of_every_class_are_counted():
    assert reference_count(np.array([[0, 1, 0], [0, 1, 1], [7, 0, 7]], np.uint8)) == 6


def test_another_number_of_components_is_an_error(fake, patches, monkeypatch):
    result = fake.predict(patches)
    assert compare([result], 1)["regions"] == 3
    monkeypatch.setattr(benchmarks.regions, "reference_count", lambda _: 4)
    with pytest.raises(PixelClipError, match="3 regions; expected 4"):
        compare([result], 1)


def test_the_command_writes_a_result(tmp_path, monkeypatch, capsys):
    out = tmp_path / "regions.json"
    monkeypatch.setattr(benchmarks.regions, "_CASES", ((5, 60, 80),))
    monkeypatch.setattr("sys.argv", ["regions.py", str(PHOTO), "--runs", "1", "--json", str(out)])
    assert main() == 0
    (case,) = json.loads(out.read_text())["cases"]
    assert case["size"] == [60, 80]
    assert case["ratio"] == pytest.approx(case["scipy_ms"] / case["ours_ms"])
    assert "5 classes, 80×60" in capsys.readouterr().out
