import json
import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.calibration import Sample, calibration_error, fitted, main
from benchmarks.calibration import report as report_of
from pixelclip_sdk.confidence import Calibration, Rivals, posteriors
from pixelclip_sdk.models import find_bundle


def test_the_error_is_the_gap_between_confidence_and_accuracy():
    assert calibration_error(np.full(10, 0.8), np.arange(10) < 8) == pytest.approx(0)
    assert calibration_error(np.full(10, 0.8), np.zeros(10, bool)) == pytest.approx(0.8)
    # Two bins with half of the pixels each: gaps of 0.2 and 0.4.
    mixed = np.repeat([0.9, 0.1], 10)
    right = np.concatenate([np.arange(10) < 7, np.arange(10) < 5])
    assert calibration_error(mixed, right) == pytest.approx(0.3)
    assert calibration_error(np.ones(4), np.ones(4, bool)) == 0  # The last bin includes 1.


def sample(seed, temperature):
    """One class against one background word; the class is right as often as the confidence says."""
    rng = np.random.default_rng(seed)
    logits = rng.uniform(-0.3, 0.3, (1, 12, 12)).astype(np.float32)
    background = np.zeros((1, 12, 12), np.float32)
    chances = posteriors(logits, Rivals(logits[:0], background, Calibration(temperature)))
    right = rng.uniform(size=(12, 12)) < chances[0]
    return Sample(
        group="drawn",
        logits=logits,
        background=background,
        labels=np.zeros((12, 12), np.uint8),
        right=right,
        scored=np.ones((12, 12), bool),
    )


def test_the_constants_that_made_the_truth_are_found():
    samples = [sample(seed, 0.1) for seed in range(20)]
    found = fitted(samples)
    assert found.temperature == pytest.approx(0.1, rel=0.35)
    assert found.background_weight == pytest.approx(1, rel=0.5)
    row = report_of([sample(seed, 0.1) for seed in range(20, 40)], found)["drawn"]
    assert row["ece"] < 0.04
    assert row["ece_before"] == pytest.approx(1 - row["accuracy"], abs=1e-3)  # One class: always 1.
    assert row["confidence"] == pytest.approx(row["accuracy"], abs=0.04)


def test_the_plain_softmax_needs_no_background():
    logits = np.array([0.02, 0.01], np.float32).reshape(2, 1, 1)
    flat = np.ones((2, 2), bool)
    labels = np.zeros((2, 2), np.uint8)
    drawn = Sample(group="", logits=logits, background=logits, labels=labels, right=flat, scored=flat)
    np.testing.assert_allclose(drawn.plain(), 1 / (1 + np.exp(-1)), rtol=1e-5)


def test_the_command_fits_and_stores_what_it_found(tmp_path, photo, capsys):
    bundle = shutil.copytree(find_bundle("pixelclip-lite").path, tmp_path / "bundle")
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i in range(2):
        Image.fromarray(np.asarray(photo)[i::4, ::4]).save(tmp_path / "data" / "images" / f"{i}.png")
        height, width = np.asarray(photo)[i::4, ::4].shape[:2]
        Image.fromarray(np.full((height, width), i, np.uint8)).save(tmp_path / "data" / "labels" / f"{i}.png")
    sets = tmp_path / "sets.yaml"
    sets.write_text("photos: {dataset: folder, folder: data, classes: [cat, wall, sofa]}\n")
    words = tmp_path / "words.txt"
    words.write_text("sky\ngrass\nfloor\n")
    arguments = ["--bundle", bundle, "--sets", sets, "--root", tmp_path, "--words", words]
    result = tmp_path / "result.json"
    assert main([*map(str, arguments), "--write", "--json", str(result)]) == 0
    assert "Calibration(temperature=" in capsys.readouterr().out
    stored = json.loads(result.read_text())
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert manifest["confidence"] == stored["calibration"] == Calibration(**stored["calibration"])._asdict()
    assert set(stored["groups"]) == {"photos, all words", "photos, half of the words", "mean"}
    assert any(name.startswith("vocabularies/background.") for name in stored["files"])
