import numpy as np
import pytest
from PIL import Image

from benchmarks.distillation.compare import compare, summary
from benchmarks.distillation.world import distilled
from pixelclip_sdk import available_models
from training.evaluation.datasets import load_dataset
from training.world.experiments import Sizes

LITE = available_models()["pixelclip-lite"]


@pytest.fixture
def labelled(tmp_path, lite, photo):
    """A photo with lite's own labels as the truth."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.fromarray(photo).save(tmp_path / "images" / "a.png")
    labels = lite.predict(photo, refine="off").labels
    Image.fromarray(labels).save(tmp_path / "labels" / "a.png")
    return load_dataset("folder", tmp_path, classes=list(lite.vocabulary.names))


def test_a_model_keeps_all_of_itself(labelled):
    result = compare(LITE, LITE, {"own": labelled}, named=None, rounds=3)
    assert result["scores"]["own"] == {"teacher": pytest.approx(1), "student": pytest.approx(1)}
    assert result["kept"] == {"own": pytest.approx(1)}
    assert result["time_share"] == result["encoder_ms"]["student"] / result["encoder_ms"]["teacher"]
    assert result["teacher"]["sha256"] == result["student"]["sha256"]
    assert "own: teacher 100.0%, student 100.0%, kept 100.0%" in summary(result)


@pytest.mark.slow
def test_the_world_is_distilled_and_scored(tmp_path):
    sizes = Sizes(
        pairs=24, photos=12, held_out=3, clip_steps=2, overrides=("steps=2", "batch=4", "clusters=8")
    )
    result = distilled(tmp_path, sizes, 0, 2, "steps=3", "batch=8", "log_every=1")
    assert result["seed"] == 0
    assert set(result["kept"]) == {"held-out scenes"}
    assert np.isfinite(result["scores"]["held-out scenes"]["student"])
    assert result["student"]["image_encoder_mb"] < result["teacher"]["image_encoder_mb"]
    assert (tmp_path / "seed-0" / "student" / "student.json").is_file()
