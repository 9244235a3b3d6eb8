import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.presence import LIMITS, THINGS, Numbers, area_under_curve, curves, main, shares, truth_of


def test_the_area_under_the_curve_is_a_probability():
    assert area_under_curve([3, 4], [1, 2]) == 1
    assert area_under_curve([1, 2], [3, 4]) == 0
    assert area_under_curve([1, 1], [1, 1]) == 0.5
    assert area_under_curve([1, 3], [2]) == 0.5


def numbers(area):
    return Numbers(
        area=area,
        best_cosine=-area,
        confident_area=area,
        best_confidence=area,
        presence=area,
        areas=tuple(area if limit <= 0.5 else 0.0 for limit in LIMITS),
    )


def test_photos_with_too_little_of_a_thing_count_for_neither_side():
    truth = dict.fromkeys(THINGS, False)
    photos = [
        (dict.fromkeys(THINGS, True), {thing: numbers(0.4) for thing in THINGS}),
        (truth, {thing: numbers(0.2) for thing in THINGS}),
        (truth | {"cat": None}, {thing: numbers(0.6) for thing in THINGS}),
    ]
    found = curves(photos)
    assert found["area"]["cat"] == 1
    assert found["area"]["dog"] == 0.5
    assert found["best_cosine"]["dog"] == 0.5
    assert found["area"]["mean"] == pytest.approx((1 + 5 * 0.5) / 6)
    assert shares(photos)[0] == {"min_confidence": 0.0, "found": 1.0, "false_alarms": 1.0}
    assert shares(photos)[-1] == {"min_confidence": 0.9, "found": 0.0, "false_alarms": 0.0}


def test_truth_is_what_the_labels_show(tmp_path):
    labels = np.zeros((100, 100), np.uint8)
    labels[:10] = 8  # cat
    labels[50, :20] = 12  # dog: 0.2 %
    labels[60:] = 255
    Image.fromarray(labels).save(tmp_path / "a.png")
    truth = truth_of(tmp_path / "a.png")
    assert truth == {**dict.fromkeys(THINGS, False), "cat": True, "dog": None}


def test_the_command_writes_both_tests(tmp_path, photo, capsys):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    small = np.asarray(photo)[::4, ::4]
    for name, label in (("with", [8, 12, 13, 10, 17, 15]), ("without", [0])):
        Image.fromarray(small).save(tmp_path / "images" / f"{name}.jpg")
        rows = np.array(label, np.uint8)[np.arange(small.shape[0]) * len(label) // small.shape[0]]
        Image.fromarray(np.repeat(rows[:, None], small.shape[1], 1)).save(tmp_path / "labels" / f"{name}.png")
    assert main(["--voc", str(tmp_path), "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    # Both photos are the same, so every number is.
    assert all(row["mean"] == 0.5 for row in result["among_15_words"].values())
    assert all(row["mean"] == 0.5 for row in result["beside_surroundings"].values())
    assert len(result["limits"]) == len(LIMITS)
    assert result["photos"]["cat"] == [1, 1]
    assert "presence" in capsys.readouterr().out
