"""The comparison of words and pictures scores what it says, on a tiny set with the bundled model."""

import json

import numpy as np
import pytest
from PIL import Image

from benchmarks import prompts


@pytest.fixture
def groceries(tmp_path):
    """Two kinds of three photos each: crops of the example photos."""
    words = {}
    (tmp_path / "images").mkdir()
    for kind in ("chelsea", "coffee"):
        with Image.open(f"{prompts.ROOT}/examples/photos/{kind}.jpg", formats=("JPEG",)) as image:
            for i in range(3):
                file = f"grocery_{kind}_{i}.jpg"
                image.crop((10 * i, 10 * i, image.width - 10 * i, image.height)).save(
                    tmp_path / "images" / file
                )
                words[file] = [kind]
    (tmp_path / "words.json").write_text(json.dumps(words))
    return tmp_path


def test_photos_like_the_example_are_won_by_the_example(lite, groceries, monkeypatch):
    monkeypatch.setattr(prompts, "SCALES", (1.0, 0.7))
    result = prompts.grocery_prompts(lite, prompts.Features(lite), groceries, 1)
    assert result["classes"] == ["chelsea", "coffee"]
    assert result["photos"] == 4
    assert [row["scale"] for row in result["rows"]] == [1.0, 0.7]
    assert [row["scores"]["pictures"] for row in result["rows"]] == [1.0, 1.0]
    assert {"words", "mixed, words", "mixed, pictures"} < set(result["rows"][0]["scores"])


def test_every_other_class_is_given_by_pictures_then_by_words(lite, photo):
    """The score of a class is 1 if its row is the word's, so the means tell which rows were used."""
    text = lite.embed(["a", "b", "c"]).embeddings

    def score(rows):
        return (np.abs(rows - text).max(axis=1) < 1e-6).astype(float)

    rows = prompts._compared(lite, {"a": [photo], "b": [photo], "c": [photo]}, text, score, "test")
    for row in rows:
        assert row["scores"] == {"words": 1.0, "pictures": 0.0, "mixed, pictures": 0.0, "mixed, words": 1.0}
