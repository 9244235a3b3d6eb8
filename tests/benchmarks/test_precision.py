import numpy as np
import pytest

from benchmarks.precision import agreement, report


def test_ratios_are_against_the_named_reference():
    row = report({"eager": 10.0, "fp32": 5.0}, {"fp32": 100, "int8": 25})
    assert row["reference"] == "eager"
    assert row["speedup"] == {"eager": 1.0, "fp32": 2.0}
    assert row["size_ratio"] == {"fp32": 1.0, "int8": 0.25}


def test_agreement_sees_a_changed_label():
    logits = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    batch = {"image": np.zeros((1, 8, 8, 3), np.uint8), "text": np.zeros((3, 4), np.float32)}
    assert agreement(lambda _: logits, lambda _: logits, [batch]) == 1
    assert agreement(lambda _: logits, lambda _: np.roll(logits, 1, axis=1), [batch]) == pytest.approx(
        0, abs=0.1
    )
