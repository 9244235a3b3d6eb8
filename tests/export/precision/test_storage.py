import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.precision.storage import store_fp16, store_int8

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(200, 64)).astype(np.float32)
MATRIX = RNG.normal(size=(64, 48)).astype(np.float32) * np.logspace(-2, 1, 48, dtype=np.float32)
IDS = np.array([3, 77, 199, 3])


@pytest.fixture
def model() -> onnx.ModelProto:
    """ids → rows of a table → times a matrix, whose columns differ a lot in size."""
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "matrix"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 48])],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(MATRIX, "matrix")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"ids": IDS})[0]


def test_fp16_halves_the_file_and_keeps_the_values(model):
    small = store_fp16(model)
    assert small.ByteSize() < 0.55 * model.ByteSize()
    np.testing.assert_allclose(run(small), run(model), rtol=5e-3, atol=1e-2 * np.abs(MATRIX).max())


def test_int8_quarters_the_file_and_keeps_the_values_of_every_column(model):
    small = store_int8(model)
    assert small.ByteSize() < 0.35 * model.ByteSize()
    error = np.abs(run(small) - run(model))
    # A scale for each column: small columns are as exact, relative to their size, as large ones.
    bound = np.outer(np.linalg.norm(TABLE[IDS], axis=1), np.linalg.norm(MATRIX, axis=0))
    assert (error < 0.01 * bound).all()


def test_the_source_is_not_changed(model):
    before = model.SerializeToString()
    store_int8(store_fp16(model))
    store_int8(model)
    assert model.SerializeToString() == before


def test_weights_can_be_kept(model):
    kept = store_int8(model, keep=["matrix"])
    assert {w.name for w in kept.graph.initializer} == {"table.int8", "table.scale", "matrix"}
    assert {w.name for w in store_int8(model, min_elements=10_000).graph.initializer} >= {"matrix"}


def test_weights_beyond_fp16_stay_fp32(model):
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(MATRIX * 1e6, "matrix"))
    small = store_fp16(model)
    assert {w.name for w in small.graph.initializer} == {"table.fp16", "matrix"}
    np.testing.assert_allclose(run(small), run(model), rtol=5e-3, atol=1e4 * np.abs(MATRIX).max())
