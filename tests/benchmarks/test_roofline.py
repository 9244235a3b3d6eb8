import numpy as np
import pytest

from benchmarks.floors.graph_cost import GraphCost, NodeCost
from benchmarks.floors.operators import kinds
from benchmarks.harness.machine import floor, integer_work, matrix_work, memory_work, rates
from benchmarks.roofline import lite_case, measure, table, work
from pixelclip_sdk.benchmark import sample_jpeg

LIMITS = {"matrix": 1e9, "memory": 1e8}


def test_the_longer_of_two_times_is_the_floor():
    assert floor(2e6, 1e5, LIMITS) == (2.0, "matrix")
    assert floor(2e6, 1e6, LIMITS) == (10.0, "memory")
    assert floor(2e6, 1e5, {**LIMITS, "integer": 4e9}, integers=1e6) == (1.25, "matrix")


def test_the_best_call_of_the_best_library_is_the_rate():
    made = {"a": (lambda: None, 2e6), "b": (lambda: None, 4e6)}
    found = rates(made, {"a": [1.0, 2.0, 4.0], "b": [4.0, 8.0, 5.0], "other": [1e-9]})
    assert found["best"] == 2e9
    assert found["typical"] == 1e9
    assert found["all"]["a"] == {"best": 2e9, "median": 1e9}
    assert found["all"]["b"] == {"best": 1e9, "median": 8e8}


def test_the_machines_work_is_what_it_says():
    products = matrix_work((16,))
    assert {amount for _, amount in products.values()} == {2 * 16**3}
    one, other, (third,) = (call() for call, _ in products.values())
    np.testing.assert_allclose(one.numpy(), other, atol=1e-5)
    np.testing.assert_allclose(third, other, atol=1e-5)
    rng = np.random.default_rng(0)  # As there: the same matrices.
    a, b = rng.integers(0, 256, (16, 16), dtype=np.uint8), rng.integers(-63, 64, (16, 16), dtype=np.int8)
    integers = integer_work((16,))
    assert {amount for _, amount in integers.values()} == {2 * 16**3}
    one, (other,) = (call() for call, _ in integers.values())
    np.testing.assert_array_equal(one.numpy(), a.astype(int) @ b.astype(int))
    np.testing.assert_array_equal(other, one.numpy())
    moved = memory_work(10)
    assert {name: amount for name, (_, amount) in moved.items()} == {"read": 40, "copy": 80, "triad": 120}
    assert [float(call().sum()) for call, _ in moved.values()] == [10, 10, 40]


def test_kinds_have_floors_of_their_nodes_and_small_ones_are_one():
    rows = [
        {"kind": "MatMul by one matrix", "nodes": 3, "ms": 9.0, "bytes": 0},
        {"kind": "Softmax", "nodes": 1, "ms": 0.97, "bytes": 50_000},
        {"kind": "Add", "nodes": 2, "ms": 0.02, "bytes": 1000},
        {"kind": "Reshape", "nodes": 5, "ms": 0.01, "bytes": 1_000_000},
        {"kind": "between nodes", "nodes": 0, "ms": 0.0, "bytes": 0},
    ]
    # One is bound by its operations, the other by its bytes: 2 ms and 1 ms.
    nodes = tuple(NodeCost("", rows[0]["kind"], *cost) for cost in ((2_000_000, 100), (100, 100_000)))
    product, softmax, others, between = kinds(rows, GraphCost(nodes, 0, 0, 0), LIMITS)
    assert product["floor_ms"] == pytest.approx(3)
    assert product["over_floor"] == pytest.approx(3)
    assert (product["operations"], product["bytes"], product["share"]) == (2_000_100, 100_100, 0.9)
    assert softmax["over_floor"] == pytest.approx(0.97 / 0.5)
    assert (others["kind"], others["nodes"], others["bytes"]) == ("others", 7, 1000)
    assert between["over_floor"] is None


def test_what_stages_cannot_avoid():
    case = lite_case(sample_jpeg(96, 128))
    height, width = case.feeds["image"].shape[1:3]
    cells = height * width // 32**2
    needs = work(case, case.cost())
    assert needs["decode"] == (0, 0, len(case.jpeg) + 96 * 128 * 3)
    assert needs["preprocess"] == (2 * 96 * 128 * 3, 0, 96 * 128 * 3 + height * width * 3)
    assert needs["postprocess"] == (20 * cells, 0, 4 * 20 * cells + 96 * 128)
    assert needs["inference"][1] == 0
    assert needs["inference"][2] > 22e6 + height * width * 3


def test_measuring_gives_every_stage_its_floor():
    report = measure(
        {"pixelclip-lite": lite_case(sample_jpeg(96, 128))},
        2,
        products=matrix_work((64,)),
        integers=integer_work((64,)),
        memory=memory_work(1 << 16),
    )
    (model,) = report["models"]
    stages = {row["stage"]: row for row in model["stages"]}
    assert list(stages) == ["decode", "preprocess", "inference", "postprocess", "total"]
    parts = [row["floor_ms"] for row in model["stages"][:-1]]
    assert stages["total"]["floor_ms"] == pytest.approx(sum(parts))
    for row in model["stages"]:
        assert row["over_floor"] == pytest.approx(row["ms"] / row["floor_ms"])
        assert row["min_ms"] <= row["ms"]
    assert sum(row["share"] for row in model["operators"]) == pytest.approx(1)
    ratio = report["ratios"]["pixelclip-lite: floor over inference, medians"]
    assert ratio == pytest.approx(1 / stages["inference"]["over_typical_floor"])
    # Medians are slower than the best call: their floors are higher.
    assert all(row["typical_floor_ms"] >= row["floor_ms"] for row in model["stages"])
    assert model["encoder"]["over_typical_floor"] <= stages["inference"]["over_floor"]
    rate = max(row["median"] for name, row in report["machine"]["matrix"]["all"].items() if "runtime" in name)
    own = stages["inference"]["operations"] / rate * 1e3
    assert model["encoder"]["over_own_products"] == pytest.approx(stages["inference"]["ms"] / own)
    assert model["encoder"]["over_operator_floors"] > 0
    shown = table(report)
    assert "Conv depthwise" in shown
    assert "inference within 1.5 of its floor" in shown


def test_a_rate_that_an_operator_beats_is_said():
    report = measure(
        {"model": lite_case(sample_jpeg(96, 128))},
        1,
        products={"slow": (lambda: None, 1e-3)},
        integers=integer_work((64,)),
        memory=memory_work(1 << 16),
    )
    assert "Conv 1×1 ran faster than the best product" in table(report)
