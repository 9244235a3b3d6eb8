import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.floors.graph_cost import graph_cost, operations
from benchmarks.floors.operators import kind, profile
from benchmarks.roofline import lite_case
from pixelclip_sdk.benchmark import sample_jpeg
from pixelclip_sdk.bundle import IMAGE_ENCODER


def graph(nodes, inputs, outputs, constants=None):
    """A model of float inputs whose sides are free."""
    values = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}{i}" for i in range(rank)])]
        for name, rank in {**inputs, **outputs}.items()
    ]
    made = helper.make_graph(
        nodes,
        "made",
        [value for (value,) in values[: len(inputs)]],
        [value for (value,) in values[len(inputs) :]],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("group", "weight", "expected"),
    [
        # 4×4 places of 8 results, each a sum over 3 channels of a 3×3 window: 8·16·27 multiply-adds.
        (1, (8, 3, 3, 3), 2 * 8 * 16 * 27),
        # Depthwise: each result sees one channel only.
        (3, (3, 1, 3, 3), 2 * 3 * 16 * 9),
    ],
)
def test_convolutions_by_hand(group, weight, expected):
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=group, pads=[1, 1, 1, 1], strides=[2, 2])
    cost = graph_cost(graph([node], {"x": 4}, {"y": 4}, {"w": zeros(*weight)}), {"x": (1, 3, 8, 8)}, "y")
    assert cost.operations == expected
    assert cost.bytes == 4 * (np.prod(weight) + 3 * 64 + weight[0] * 16)


def test_products_of_dequantized_tensors_are_integer_operations():
    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["h"]),  # (5, 7) · (7, 11), both in int8
        helper.make_node("DequantizeLinear", ["p", "scale"], ["u"]),
        helper.make_node("MatMul", ["h", "u"], ["y"]),  # (5, 11) · (11, 2), only the weights in int8
    ]
    weights = {"w": np.zeros((7, 11), np.int8), "p": np.zeros((11, 2), np.int8)}
    model = graph(nodes, {"x": 2}, {"y": 2}, {"scale": scale, "zero": zero, **weights})
    cost = graph_cost(model, {"x": (5, 7)}, "y")
    assert cost.integer_operations == 2 * 5 * 7 * 11
    assert cost.operations == 2 * 5 * 7 * 11 + 2 * 5 * 11 * 2
    assert cost.bytes == 7 * 11 + 11 * 2 + 4 + 1 + 4 * (5 * 7 + 5 * 2)  # int8 weights, scale, zero, x, y


def test_nodes_that_the_output_does_not_need_cost_nothing():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),  # (2, 5, 7) · (7, 11)
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "t"], ["y"]),  # (2, 5, 11) · (2, 11, 5)
        helper.make_node("MatMul", ["x", "w"], ["unused"]),
    ]
    model = graph(nodes, {"x": 3}, {"y": 3, "unused": 3}, {"w": zeros(7, 11)})
    assert graph_cost(model, {"x": (2, 5, 7)}, "y").operations == 2 * 2 * 5 * 7 * 11 + 2 * 2 * 5 * 11 * 5


def test_gemm_and_vectors_by_hand():
    assert operations("Gemm", [(7, 5), (7, 3), (3,)], (5, 3)) == 2 * 5 * 7 * 3  # A is transposed.
    assert operations("MatMul", [(7,), (7, 3)], (3,)) == 2 * 7 * 3
    assert operations("Add", [(7,), (7,)], (7,)) == 0
    with pytest.raises(ValueError, match="Einsum is not counted; expected Conv, MatMul, Gemm"):
        operations("Einsum", [(2, 3), (3, 2)], (2, 2))


def test_missing_shapes_are_refused():
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "c"], ["y"]),
    ]
    model = graph(nodes, {"x": 2}, {"y": 2}, {"w": zeros(3, 2)})
    with pytest.raises(ValueError, match="the shape of 'c' cannot be inferred"):
        graph_cost(model, {"x": (2, 3)}, "y")
    with pytest.raises(ValueError, match="no shape for the input 'x'"):
        graph_cost(model, {}, "y")


def test_kinds_of_nodes():
    assert kind("FusedConv", [(1, 8, 4, 4), (16, 8, 1, 1)]) == "Conv 1×1"
    assert kind("Conv", [(1, 8, 4, 4), (8, 1, 3, 3)]) == "Conv depthwise"
    assert kind("MatMul", [(1, 401, 768)]) == "MatMul by one matrix"  # ONNX Runtime packed the other one.
    assert kind("FusedMatMul", [(12, 5, 4), (12, 5, 4)]) == "MatMul batched"
    assert kind("QuickGelu", [(1, 5)]) == "QuickGelu"


def test_the_bundled_model_has_the_operations_of_its_architecture(tmp_path):
    case = lite_case(sample_jpeg(96, 128))
    cost = case.cost()
    # EfficientNet-Lite0 has 0.4 G multiply-adds at 224² with its classifier; ours has two tables on top.
    pixels = np.prod(case.feeds["image"].shape[1:3]) / 224**2
    assert 0.8e9 * pixels < cost.operations < 1.2e9 * pixels
    assert cost.bytes > 4.6e6  # Its parameters, one byte each at least.
    *rows, between = profile(case.bundle.file(IMAGE_ENCODER), case.feeds, 2, tmp_path)
    assert between["kind"] == "between nodes"
    assert sum(row["share"] for row in (*rows, between)) == pytest.approx(1)
    assert {row["kind"]: row["nodes"] for row in rows}["Conv depthwise"] == 16
    ordered = [row["ms"] for row in rows if row["kind"] != "others"]
    assert ordered == sorted(ordered, reverse=True)
