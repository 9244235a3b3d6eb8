import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import photo_test as command
from benchmarks.photo_test import difference, draw_names, name_of, photo_test

ROOT = Path(__file__).parents[3]


def test_names_come_from_file_names():
    assert name_of(Path("n02123394_Persian_cat.jpg")) == "persian cat"
    assert name_of(Path("photos/tabby_cat.png")) == "tabby cat"


def test_drawn_names_are_fixed_by_file_and_seed():
    names = [f"name {i}" for i in range(50)] + ["cat"]
    photo = Path("cat.jpg")
    drawn = draw_names(photo, names, 20, seed=0)
    assert len(set(drawn)) == 20
    assert "cat" in drawn
    assert drawn == draw_names(photo, names, 20, seed=0) != draw_names(photo, names, 20, seed=1)


def test_photo_test_counts_the_largest_area(tmp_path, photo, lite):
    before = lite.vocabulary
    Image.fromarray(photo).save(tmp_path / "cat.jpg")
    Image.fromarray(photo).save(tmp_path / "fire_engine.jpg")  # A wrong name has to lose.
    result = photo_test(lite, tmp_path, count=2)
    lite.set_classes(before)
    assert result.largest == 0.5
    assert result.lost == {"fire_engine.jpg": "cat"}
    assert result.won == (1.0, 0.0)


def test_a_difference_is_paired_and_knows_its_chance():
    assert difference([1, 0, 1], [1, 0, 1]) == (0, 0, 0)
    # 30 of 100 photos won, 10 lost: the deviation of such a mean is √(0.4 - 0.2²) / 10 = 0.06.
    more, low, high = difference([1.0] * 30 + [0.0] * 70, [0.0] * 30 + [1.0] * 10 + [0.0] * 60)
    assert more == pytest.approx(0.2)
    assert low == pytest.approx(0.2 - 1.96 * 0.06, abs=0.015)
    assert high == pytest.approx(0.2 + 1.96 * 0.06, abs=0.015)


def test_two_models_see_the_same_names(tmp_path, photo, monkeypatch, capsys):
    for name in ("cat", "fire_engine", "lighthouse"):
        Image.fromarray(photo).save(tmp_path / f"{name}.jpg")
    out = tmp_path / "result.json"
    arguments = f"photo_test {tmp_path} --names 2 --draws 3 --against pixelclip-lite --json {out}"
    monkeypatch.setattr(sys, "argv", arguments.split())
    assert command.main() == 0
    assert "difference: +0.00 points, +0.00 to +0.00 with 95 % confidence" in capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["won"] == result["against"]["won"]
    assert result["won"][0] == 1  # The cat, against whatever is drawn.
    assert (result["draws"], result["difference"], result["interval"]) == (3, 0, [0, 0])
    expected = "python photo_test PHOTOS --names 2 --draws 3 --against pixelclip-lite --json JSON"
    assert result["command"] == expected


def test_accuracy_needs_no_torch():
    code = "import sys, benchmarks.harness.accuracy; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_the_latency_command_runs_and_writes_json(tmp_path):
    out = tmp_path / "result.json"
    latency = [sys.executable, str(ROOT / "benchmarks" / "latency.py"), "--runs", "2", "--json", str(out)]
    subprocess.run(latency, check=True, capture_output=True)
    result = json.loads(out.read_text())
    assert {"from_pretrained", "first picture"} <= result["cold_start_s"].keys()
    assert 50 < result["peak_mb"] < 1000
    stages = result["stages"]
    assert result["ratios"] == {
        "encoder's share of the time": stages["inference"]["p50"] / stages["total"]["p50"]
    }
    assert result["command"].startswith("python benchmarks/latency.py --runs 2 --json ")
