import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.floors.graph_cost import graph_cost, kind, operations


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
    assert cost.weight_bytes == 4 * np.prod(weight)
    assert cost.edge_bytes == 4 * (3 * 64 + weight[0] * 16)
    assert cost.nodes[0].bytes == cost.weight_bytes + cost.edge_bytes
    assert cost.nodes[0].kind == ("Conv 3×3" if group == 1 else "Conv depthwise")


def test_integers_are_products_of_two_arrays_that_are_only_unpacked():
    scale, zero = np.array(0.1, np.float32), np.array(0, np.uint8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "scale"], ["v"]),
        helper.make_node("MatMul", ["d", "v"], ["h"]),  # (5, 7) · (7, 11), both in a byte
        helper.make_node("MatMul", ["h", "u"], ["y"]),  # (5, 11) · (11, 2) in fp32
        helper.make_node("DequantizeLinear", ["p", "scale"], ["u"]),  # Weights that are only stored so.
    ]
    weights = {"w": np.zeros((7, 11), np.int8), "p": np.zeros((11, 2), np.int8)}
    model = graph(
        nodes[:4] + nodes[5:] + nodes[4:5], {"x": 2}, {"y": 2}, {"scale": scale, "zero": zero, **weights}
    )
    cost = graph_cost(model, {"x": (5, 7)}, "y")
    assert cost.integer_operations == 2 * 5 * 7 * 11
    assert cost.operations == 2 * 5 * 7 * 11 + 2 * 5 * 11 * 2
    products = [node for node in cost.nodes if node.operations]
    assert [node.integer for node in products] == [True, False]
    assert products[0].bytes == 5 * 7 + 7 * 11 + 4 * 5 * 11
    assert products[1].bytes == 4 * (5 * 11 + 11 * 2 + 5 * 2)


def test_products_by_hand():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),  # (2, 5, 7) · (7, 11)
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "t"], ["y"]),  # (2, 5, 11) · (2, 11, 5)
        helper.make_node("MatMul", ["x", "w"], ["unused"]),
    ]
    model = graph(nodes, {"x": 3}, {"y": 3, "unused": 3}, {"w": zeros(7, 11)})
    cost = graph_cost(model, {"x": (2, 5, 7)}, "y")
    assert [(node.kind, node.operations) for node in cost.nodes] == [
        ("MatMul by one matrix", 2 * 2 * 5 * 7 * 11),
        ("Transpose", 0),
        ("MatMul batched", 2 * 2 * 5 * 11 * 5),
    ]
    assert cost.nodes[1].bytes == 2 * 4 * 2 * 5 * 11


def test_gemm_einsum_and_attention_by_hand():
    assert operations("Gemm", [(7, 5), (7, 3), (3,)], [(5, 3)], {"transA": 1}) == 2 * 5 * 7 * 3
    assert operations("MatMul", [(7,), (7, 3)], [(3,)]) == 2 * 7 * 3
    equation = {"equation": "bhqd, bhkd -> bhqk"}
    assert operations("Einsum", [(1, 2, 5, 4), (1, 2, 6, 4)], [(1, 2, 5, 6)], equation) == 2 * 2 * 5 * 6 * 4
    # Two heads of 4: 5 queries against 6 keys, then 6 values of 3.
    shapes = [(1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 3)]
    assert operations("Attention", shapes, [(1, 2, 5, 3)]) == 2 * 2 * 5 * 6 * (4 + 3)
    with pytest.raises(ValueError, match="no ellipsis"):
        operations("Einsum", [(2, 3), (3, 2)], [(2, 2)], {"equation": "...a,a...->..."})
    with pytest.raises(ValueError, match="equal rank"):
        operations("Attention", [(1, 5, 8), (8, 24), (24,)], [(1, 5, 8)])


def test_einsum_in_a_graph_has_its_equation():
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation="nc,kc->nk")
    cost = graph_cost(graph([node], {"x": 2}, {"y": 2}, {"w": zeros(5, 3)}), {"x": (4, 3)}, "y")
    assert cost.operations == 2 * 4 * 5 * 3


def test_what_folds_when_the_graph_loads_costs_nothing_but_its_result():
    nodes = [
        helper.make_node("Cast", ["stored"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    model = graph(nodes, {"x": 2}, {"y": 2}, {"stored": np.zeros((3, 5), np.int8)})
    cost = graph_cost(model, {"x": (2, 3)}, "y")
    assert [node.kind for node in cost.nodes] == ["MatMul by one matrix"]
    assert cost.weight_bytes == 4 * 15  # fp32, not the int8 of the file


def test_views_move_nothing_and_missing_shapes_are_refused():
    nodes = [
        helper.make_node("Reshape", ["x", "to"], ["r"]),
        helper.make_node("NonZero", ["r"], ["n"]),
        helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT),
    ]
    model = graph(nodes, {"x": 2}, {"r": 1, "y": 2}, {"to": np.array([-1])})
    assert graph_cost(model, {"x": (2, 3)}, "r").nodes[0].bytes == 0
    with pytest.raises(ValueError, match="shape of 'n' does not follow"):
        graph_cost(model, {"x": (2, 3)}, "y")
    with pytest.raises(ValueError, match="no shape for the input 'x'"):
        graph_cost(model, {}, "r")


def test_kinds_of_nodes_that_onnxruntime_made():
    assert kind("FusedConv", [(1, 8, 4, 4), (16, 8, 1, 1)]) == "Conv 1×1"
    assert kind("MatMul", [(1, 401, 768)]) == "MatMul by one matrix"  # It packed the other one.
    assert kind("FusedMatMul", [(12, 5, 4), (12, 5, 4)]) == "MatMul batched"
    assert kind("QuickGelu", [(1, 5)]) == "QuickGelu"


def test_the_bundled_models_count_agrees_with_what_onnxruntime_ran(tmp_path):
    from benchmarks.floors.operators import profile
    from benchmarks.roofline import lite_case
    from pixelclip_sdk.benchmark import sample_jpeg
    from pixelclip_sdk.bundle import IMAGE_ENCODER

    case = lite_case(sample_jpeg(96, 128))
    cost = case.cost()
    # EfficientNet-Lite0 has 0.4 G multiply-adds at 224² with its classifier; ours has two tables on top.
    pixels = np.prod(case.feeds["image"].shape[1:3]) / 224**2
    assert 0.8e9 * pixels < cost.operations < 1.2e9 * pixels
    assert cost.weight_bytes > 4 * 4.6e6  # its parameters
    ran = {
        row["kind"]: row["nodes"] for row in profile(case.bundle.file(IMAGE_ENCODER), case.feeds, 1, tmp_path)
    }
    for name in {node.kind for node in cost.nodes if node.operations}:
        counted = sum(node.kind == name for node in cost.nodes)
        assert abs(ran[name] - counted) <= 1, name  # A batch norm becomes a convolution.
