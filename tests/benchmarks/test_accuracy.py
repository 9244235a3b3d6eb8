import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.labelled_test import class_ious, confusion
from benchmarks.photo_test import draw_names, name_of, photo_test

ROOT = Path(__file__).parents[2]


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


def test_iou_is_intersection_over_union_and_skips_absent_classes():
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(class_ious(matrix), [6 / 9, 3 / 6, np.nan])


@pytest.fixture
def labelled(tmp_path, patches):
    """Two pictures with labels; a quarter of the pixels is ignored."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    truth = np.zeros((64, 64), np.uint8)
    truth[32:, :32], truth[32:, 32:] = 1, 255
    for name in ("a", "b"):
        Image.fromarray(patches).save(tmp_path / "images" / f"{name}.png")
        Image.fromarray(truth).save(tmp_path / "labels" / f"{name}.png")
    return tmp_path


def test_confusion_counts_every_pixel_that_is_not_ignored(labelled, fake):
    matrix = confusion(fake, labelled)
    assert matrix.sum() == 2 * 64 * 64 * 3 / 4
    assert np.nanmean(class_ious(matrix)) > 0.85


def test_missing_labels_are_refused(labelled, fake):
    (labelled / "labels" / "b.png").unlink()
    with pytest.raises(SystemExit, match="same stem"):
        confusion(fake, labelled)


def test_the_commands_run_and_write_json(labelled, tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "labelled_test.py"), str(labelled)]
    command += ["--classes", "red, green, blue", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads(out.read_text())["synonyms"] == {"red": ["red"], "green": ["green"], "blue": ["blue"]}
    latency = [sys.executable, str(ROOT / "benchmarks" / "latency.py"), "--runs", "2", "--json", str(out)]
    subprocess.run(latency, check=True, capture_output=True)
    assert "from_pretrained" in json.loads(out.read_text())["cold_start_s"]
