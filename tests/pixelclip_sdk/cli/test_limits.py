"""The options that decide which pixels become unknown, and `pixelclip calibrate`."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.cli.main import main

CLASSES = ["--classes", "cat, sofa"]


@pytest.fixture
def cat(tmp_path, photo):
    path = tmp_path / "in" / "cat.png"
    path.parent.mkdir()
    Image.fromarray(np.asarray(photo)[::4, ::4]).save(path)
    return path


def facts_of(image, out, *arguments):
    assert main(["predict", str(image), *CLASSES, *arguments, "--out", str(out)]) == 0
    return json.loads((out / "cat.json").read_text(encoding="utf-8"))


def test_one_limit_or_one_per_class(cat, tmp_path):
    everything = facts_of(cat, tmp_path / "a")
    assert sum(everything["areas"].values()) == pytest.approx(1)
    assert everything["min_confidence"] is None
    assert set(everything["presence"]) == {"cat", "sofa"}
    assert 0 < everything["presence"]["cat"] <= 1
    nothing = facts_of(cat, tmp_path / "b", "--min-confidence", "1")
    assert sum(nothing["areas"].values()) < 0.01
    assert nothing["min_confidence"] == 1
    no_cat = facts_of(cat, tmp_path / "c", "--min-confidence", "cat=1, sofa=0")
    assert no_cat["areas"]["cat"] < 0.01
    assert no_cat["areas"]["sofa"] == everything["areas"]["sofa"]
    assert no_cat["min_confidence"] == {"cat": 1, "sofa": 0}


def test_background_words_leave_less_to_the_classes(cat, tmp_path):
    before = facts_of(cat, tmp_path / "a")["areas"]
    facts = facts_of(cat, tmp_path / "b", "--background", "cat, kitten, tabby cat, fur")
    assert facts["background"] == ["cat", "kitten", "tabby cat", "fur"]
    assert facts["names"] == ["cat", "sofa"]
    assert sum(facts["areas"].values()) < sum(before.values())


def test_a_limit_that_no_pixel_reaches_is_pointed_out(cat, tmp_path, capsys):
    facts_of(cat, tmp_path / "out", "--min-confidence", "1")
    assert "no pixel reached --min-confidence 1.0; lower it" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["2", "-0.1", "nan", "cat", "cat=2", "=0.5", "cat=0.5, 0.3"])
def test_a_limit_that_is_no_confidence_is_wrong_usage(cat, tmp_path, capsys, text):
    with pytest.raises(SystemExit) as exit_:
        main(["predict", str(cat), *CLASSES, f"--min-confidence={text}", "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2
    assert "--min-confidence" in capsys.readouterr().err


def test_a_limit_of_a_word_that_is_no_class_is_refused(cat, tmp_path, capsys):
    arguments = ["--min-confidence", "sofaa=0.5", "--out", str(tmp_path / "out")]
    assert main(["predict", str(cat), *CLASSES, *arguments]) == 1
    assert "Did you mean 'sofa'?" in capsys.readouterr().err


def test_calibrate_proposes_a_limit_per_folder(cat, tmp_path, capsys):
    folder = tmp_path / "photos"
    (folder / "cat").mkdir(parents=True)
    (folder / "others").mkdir()
    shutil.copy(cat, folder / "cat")
    Image.new("RGB", (64, 48), (90, 120, 200)).save(folder / "others" / "blue.png")
    assert main(["calibrate", str(folder), "--classes", "cat, sky", "--json"]) == 0
    proposals = json.loads(capsys.readouterr().out)
    assert list(proposals) == ["cat"]
    assert proposals["cat"]["found"] == 1
    assert proposals["cat"]["false_alarms"] == 0
    assert main(["calibrate", str(folder), "--classes", "cat, sky"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[1].split()[0] == "cat"
    limit = proposals["cat"]["min_confidence"]
    assert table[-1] == f'--min-confidence "cat={limit:.2f}"'


def test_calibrate_says_what_it_expects(cat, tmp_path, capsys):
    assert main(["calibrate", str(cat), *CLASSES]) == 1
    assert "is not a folder" in capsys.readouterr().err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert main(["calibrate", str(empty), *CLASSES]) == 1
    assert f"one per class, such as {empty}/cat" in capsys.readouterr().err
