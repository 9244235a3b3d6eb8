import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av")

from benchmarks.flicker import MovingObject, centre, cut_out, flicker, main, measure_lag
from benchmarks.harness.photos import PHOTOS
from benchmarks.video import make_video


def test_only_still_pixels_count():
    labels = [np.array([[0, 0, 0, 0]], np.uint8), np.array([[1, 1, 0, 0]], np.uint8)]
    greys = [np.array([[10, 10, 10, 250]], np.uint8), np.array([[15, 16, 10, 5]], np.uint8)]
    assert flicker(labels, greys) == pytest.approx(1 / 2)  # The second and the last pixel moved.
    assert flicker([*labels, labels[1]], [*greys, greys[1]]) == pytest.approx(1 / 4)


def test_objects_are_cut_out_by_their_labels(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    label = np.zeros((300, 300), np.uint8)
    label[50:200, 60:240] = 12  # VOC's dog.
    label[50, 60] = 255
    for stem, ids in (("a", label), ("b", label * 0 + 9)):  # The chair of b does not move by itself.
        Image.fromarray(np.full((300, 300, 3), 70, np.uint8)).save(tmp_path / "images" / f"{stem}.jpg")
        Image.fromarray(ids).save(tmp_path / "labels" / f"{stem}.png")
    (item,) = cut_out(tmp_path)
    assert item.name == "dog"
    assert item.mask.shape == (150, 180)
    assert not item.mask[0, 0]
    assert item.mask.sum() == 150 * 180 - 1


def test_an_object_moves_and_its_label_is_not_behind_itself():
    item = MovingObject(np.full((130, 140, 3), 250, np.uint8), np.ones((130, 140), bool), "dog")
    frames = item.frames(np.zeros((400, 640, 3), np.uint8), 12)
    assert len(frames) == 40
    assert [time_s for time_s, _ in frames[:2]] == [0, pytest.approx(1 / 30)]
    bright = [(frame[..., 0] > 128).astype(np.uint8) for _, frame in frames]
    assert centre(bright[3], 1) - centre(bright[2], 1) == pytest.approx(12)
    assert item.coverage(bright[3], 1, 36) == 1


def test_the_lag_of_no_objects_is_no_number(lite):
    before = lite.vocabulary
    try:
        assert measure_lag(lite, [], [None, "auto"]) == [
            {"pixels a frame": 4, "objects": 0},
            {"pixels a frame": 12, "objects": 0},
        ]
    finally:
        lite.set_classes(before)


def test_the_command_writes_json(tmp_path, monkeypatch, capsys):
    make_video(PHOTOS / "chelsea.jpg", tmp_path / "clip.mp4", height=96, width=128, frames=6)
    out = tmp_path / "flicker.json"
    monkeypatch.setattr(
        "sys.argv", ["flicker.py", "--videos", str(tmp_path), "--frames", "4", "--json", str(out)]
    )
    assert main() == 0
    report = json.loads(out.read_text())
    (row,) = report["flicker"]
    assert row["frames"] == 4
    assert 0 <= row["auto (0.3 s)"] <= 1
    assert report["smooth_ms"]["auto (0.3 s)"]["p50"] > 0
    assert "no smoothing" in capsys.readouterr().out
