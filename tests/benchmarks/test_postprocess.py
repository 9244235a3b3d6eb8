import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.postprocess import compare, grid_logits, main, ties
from pixelclip_sdk import PixelClipError

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.jpg"


def test_comparison_reports_equal_labels_and_memory(lite, tmp_path, photo):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    logits = grid_logits(lite, tmp_path / "photo.png")
    assert logits.shape == (len(lite.vocabulary), 64, 64)
    row = compare([logits], (120, 160), runs=1)
    assert row["equal_labels"] > 0.9999
    assert row["ratio"] == row["torch_ms"] / row["ours_ms"]
    assert row["peak_mb"] < 64


def test_a_wrong_result_would_show(monkeypatch):
    import benchmarks.postprocess

    logits = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    monkeypatch.setattr(benchmarks.postprocess, "reference_labels", lambda _, size: np.zeros(size, int))
    with pytest.raises(PixelClipError, match="the labels are wrong"):
        compare([logits], (64, 64), runs=1)


def test_a_tie_may_have_either_label():
    logits = np.zeros((2, 4, 4), np.float32)
    labels = np.zeros((8, 8), np.uint8)
    assert ties(logits, labels, labels) == 0
    assert ties(logits, labels, labels + 1) == 64


def test_the_command_writes_ratios_that_can_be_checked(tmp_path, monkeypatch):
    import benchmarks.postprocess

    out = tmp_path / "postprocess.json"
    monkeypatch.setattr(benchmarks.postprocess, "_CASES", ((5, 60, 80),))
    monkeypatch.setattr("sys.argv", ["postprocess.py", str(PHOTO), "--runs", "1", "--json", str(out)])
    assert main() == 0
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["ratios"] == {
        "5 classes, 80×60: speed against PyTorch": pytest.approx(result["cases"][0]["ratio"])
    }
