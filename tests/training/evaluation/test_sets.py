from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pixelclip_sdk.errors import VocabularyError
from training.evaluation import sets
from training.evaluation.datasets import DatasetError
from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX
from training.evaluation.sets import load_sets

FOLDER = {"dataset": "folder", "folder": "x"}
DEVELOPMENT = Path(sets.__file__).with_name("development.yaml")


def labelled(folder, ids):
    for name, picture in {"images": np.zeros((1, len(ids), 3), np.uint8), "labels": np.uint8([ids])}.items():
        (folder / name).mkdir(parents=True)
        Image.fromarray(picture).save(folder / name / "a.png")


@pytest.fixture
def root(tmp_path):
    """The folders of development.yaml, with one photo each."""
    labelled(tmp_path / "camvid/val", [0, 10, 11])
    labelled(tmp_path / "dev/facade", [0, 7, 255])
    labelled(tmp_path / "dev/voc", [0, 20, 255])
    labelled(tmp_path / "dev/idd", [0, 6, 255])
    return tmp_path


def test_the_development_sets(root):
    found = load_sets(DEVELOPMENT, root)
    assert {key: (data.name, data.split, len(data.classes)) for key, data in found.items()} == {
        "camvid": ("camvid-11", "val", 11),
        "facade": ("facade", "", 8),
        "voc": ("voc", "", 20),
        "idd": ("idd", "", 7),
    }
    truths = {key: data.truth(0)[0].tolist() for key, data in found.items()}
    assert truths == {
        "camvid": [0, 10, IGNORE_INDEX],
        "facade": [0, 7, IGNORE_INDEX],
        "voc": [BACKGROUND, 19, IGNORE_INDEX],
        "idd": [0, 6, IGNORE_INDEX],
    }
    assert found["idd"].classes["not drivable"] == ("sidewalk", "verge")
    labels = list(found["facade"].classes)
    assert [labels[i] for i in (0, 5, 7)] == ["building", "sky", "window"]


def test_names_of_sets_are_in_messages(root):
    Image.fromarray(np.uint8([[0, 9, 255]])).save(root / "dev/facade/labels/a.png")
    with pytest.raises(DatasetError, match="label ids 9; facade has 0-7, 255"):
        list(load_sets(DEVELOPMENT, root)["facade"].check_labels())
    (root / "dev/voc/labels/a.png").unlink()
    with pytest.raises(DatasetError, match=r"development\.yaml: voc: folder: 1 files are missing"):
        load_sets(DEVELOPMENT, root)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ({}, DatasetError, "has no data sets; expected name: {dataset"),
        ({"a": "folder"}, DatasetError, "the set 'a' is 'folder'; expected dataset and folder"),
        ({"a": {"dataset": "folder"}}, DatasetError, "expected dataset and folder, and if need be split"),
        (
            {"a": {"dataset": "folder", "folder": "x", "root": "y"}},
            DatasetError,
            "expected dataset and folder",
        ),
        (
            {"a": {"dataset": "folder", "folder": "x", "ignore": 0}},
            DatasetError,
            "expected a list of label ids",
        ),
        ({"a": {"dataset": "voc", "folder": "x"}}, DatasetError, "a: unknown data set 'voc'"),
        ({"a": {"dataset": "folder", "folder": "x", "classes": []}}, VocabularyError, "a: no classes"),
    ],
)
def test_mistakes_are_named(tmp_path, content, error, message):
    file = tmp_path / "sets.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(error, match=message):
        load_sets(file, tmp_path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot be read from .*sets\.yaml"):
        load_sets(tmp_path / "sets.yaml", tmp_path)
    (tmp_path / "sets.yaml").write_text("a: [")
    with pytest.raises(DatasetError, match=r"cannot be read from .*sets\.yaml"):
        load_sets(tmp_path / "sets.yaml", tmp_path)
