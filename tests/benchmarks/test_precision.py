import time

import numpy as np
import pytest
from PIL import Image

from benchmarks.precision import agreement, model_accuracies, timings
from export.to_onnx import trace_image_encoder
from training.models.lite.build import build_lite


def test_ratios_are_against_the_named_reference():
    def sleep(seconds):
        return lambda _: time.sleep(seconds)

    row = timings({"eager": sleep(0.02), "fp32": sleep(0.005)}, {}, 2, {"fp32": 100, "int8": 25})
    assert row["reference"] == "eager"
    assert row["speedup"] == {"eager": 1.0, "fp32": row["ms"]["eager"] / row["ms"]["fp32"]}
    assert 20 <= row["ms"]["eager"] > row["ms"]["fp32"] >= 5
    assert row["size_ratio"] == {"fp32": 1.0, "int8": 0.25}


def test_agreement_sees_a_changed_label():
    logits = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    batch = {"image": np.zeros((1, 8, 8, 3), np.uint8), "text": np.zeros((3, 4), np.float32)}
    assert agreement(lambda _: logits, lambda _: logits, [batch]) == 1
    assert agreement(lambda _: logits, lambda _: np.roll(logits, 1, axis=1), [batch]) == pytest.approx(
        0, abs=0.1
    )


@pytest.mark.slow
def test_accuracy_of_a_graph_is_measured_through_the_sdk(tmp_path, photo):
    for name in ("cat", "fire_engine"):
        Image.fromarray(photo).save(tmp_path / f"{name}.jpg")
    for i in range(18):
        Image.fromarray(photo[:32, :32]).save(tmp_path / f"thing_{'abcdefghijklmnopqr'[i]}.jpg")
    pair = build_lite()
    result = model_accuracies(trace_image_encoder(pair), pair, None, tmp_path)
    assert 0 < result["photo_test"] < 1
    assert model_accuracies(trace_image_encoder(pair), pair, None, None) == {}
