import numpy as np
import pytest

from benchmarks.harness import tables
from benchmarks.harness.machine import floor_ms, machine_work, onednn_product, peak_rates
from benchmarks.roofline import lite_case, measure
from pixelclip_sdk.benchmark import sample_jpeg

RATES = {"matrix": 1e9, "integer": 4e9, "memory": 1e8}


def test_the_longer_of_two_times_is_the_floor():
    assert floor_ms(2e6, 1e5, RATES) == 2.0  # Arithmetic.
    assert floor_ms(2e6, 1e6, RATES) == 10.0  # Memory.
    assert floor_ms(2e6, 1e5, RATES, integers=1e6) == 1.25


def test_a_rate_is_that_of_the_fastest_function():
    work = {"matrix a": (None, 2e6), "matrix b": (None, 4e6), "memory c": (None, 1e6)}
    samples = {"matrix a": [1.0, 2.0, 4.0], "matrix b": [4.0, 8.0, 5.0], "memory c": [1.0], "other": [1e-9]}
    assert peak_rates(work, samples) == {"matrix": 1e9, "memory": 1e9}


def test_the_work_computes_products_and_copies():
    work = machine_work((16,), floats=10)
    amounts = {name: amount for name, (_, amount) in work.items()}
    assert amounts.pop("memory copy") == 2 * 4 * 10
    assert set(amounts.values()) == {2 * 16**3}
    assert work["memory copy"][0]().sum() == 10
    one, other = (work[f"matrix {name} 16"][0]() for name in ("torch", "numpy"))
    np.testing.assert_allclose(one.numpy(), other, atol=1e-5)


def test_the_integer_work_computes_sums_of_products():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (16, 16), dtype=np.uint8)
    b = rng.integers(-63, 64, (16, 16), dtype=np.int8)
    product = onednn_product(a, b)()
    np.testing.assert_array_equal(product.numpy(), a.astype(np.int32) @ b.astype(np.int32))


def test_the_encoder_has_a_floor_and_fp32_operators():
    report = measure(
        {"pixelclip-lite": lite_case(sample_jpeg(96, 128))}, 2, work=machine_work((64,), floats=1 << 16)
    )
    (model,) = report["models"]
    stages = {row["stage"]: row for row in model["stages"]}
    assert list(stages) == ["decode", "preprocess", "inference", "refine", "postprocess", "total"]
    assert all(row["min_ms"] <= row["ms"] for row in stages.values())
    encoder, rates = stages["inference"], report["machine"]
    assert encoder["typical_floor_ms"] == pytest.approx(
        1e3
        * max(
            encoder["operations"] / rates["matrix"]["typical"], encoder["bytes"] / rates["memory"]["typical"]
        )
    )
    assert encoder["over_typical_floor"] == pytest.approx(encoder["ms"] / encoder["typical_floor_ms"])
    assert report["ratios"] == {
        "pixelclip-lite: floor over inference, medians": pytest.approx(1 / encoder["over_typical_floor"])
    }
    assert sum(row["share"] for row in model["operators"]) == pytest.approx(1)
    shown = "\n".join(tables.roofline(report))
    assert "Conv depthwise" in shown
    assert tables.number(encoder["typical_floor_ms"]) in shown
