"""The exported graph has fewer nodes and weights than the encoder; they are counted here."""

from collections import Counter

import onnx
import open_clip
import pytest
from clip_reference import perturbed
from onnx import numpy_helper

from export.to_onnx import trace_image_encoder
from training.models.clip.build import build_clip

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
WIDTH, LAYERS, DIM = 128, 3, 32
VIT = {"image_size": 64, "layers": LAYERS, "width": WIDTH, "patch_size": 16, "ls_init_value": 0.1}
CONVNEXT = {"timm_model_name": "convnext_tiny", "timm_pool": "", "timm_proj": "linear", "image_size": 64}


@pytest.fixture(scope="module")
def vit() -> onnx.GraphProto:
    model = perturbed(open_clip.CLIP(DIM, VIT, TEXT, quick_gelu=True))
    return trace_image_encoder(build_clip("vit", model, input_size=(64, 96))).graph


@pytest.fixture(scope="module")
def convnext() -> onnx.GraphProto:
    """The official architecture, but small; timm's smallest ones have other layers."""
    model = open_clip.CLIP(DIM, CONVNEXT, TEXT)
    for stage in model.visual.trunk.stages:
        stage.blocks = stage.blocks[:1]
    perturbed(model)
    return trace_image_encoder(build_clip("convnext", model, input_size=(64, 96))).graph


def shapes(graph: onnx.GraphProto) -> Counter[tuple[int, ...]]:
    return Counter(tuple(weight.dims) for weight in graph.initializer)


def operators(graph: onnx.GraphProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.node)


def test_the_last_block_has_no_queries_and_keys(vit):
    """Four square matrices a block, one in the last: its value path and `out_proj` as one."""
    found, ops = shapes(vit), operators(vit)
    assert found[(WIDTH, WIDTH)] == 4 * (LAYERS - 1) + 1
    assert found[(WIDTH, 4 * WIDTH)] == found[(4 * WIDTH, WIDTH)] == LAYERS
    assert not any(3 * WIDTH in shape for shape in found)
    assert ops["Softmax"] == LAYERS - 1
    # A block: four with weights and two of attention, two of the MLP. Projection, rows, columns, cosines.
    assert ops["MatMul"] == 8 * (LAYERS - 1) + 3 + 4


def test_attention_keeps_the_biases_of_queries_and_output_only(vit):
    """Two in a whole block, one in the last, which has no queries."""
    vectors = shapes(vit)[(WIDTH,)]
    norms = 2 * (2 + 2 * LAYERS)  # ln_pre, ln_post and two a block, each with weight and bias
    patches, attention, mlp = 1, 2 * (LAYERS - 1) + 1, LAYERS
    assert vectors == norms + patches + attention + mlp


@pytest.mark.parametrize("family", ["vit", "convnext"])
def test_the_first_convolution_reads_raw_pixels(request, family):
    """Only Cast and Transpose come before it: mean and standard deviation are in its weights."""
    graph = request.getfixturevalue(family)
    made = {name: node for node in graph.node for name in node.output}
    node = next(node for node in graph.node if node.op_type == "Conv")
    before = []
    while node.input[0] in made:
        node = made[node.input[0]]
        before.append(node.op_type)
    assert before == ["Transpose", "Cast"]
    assert node.input[0] == "image"
    assert operators(graph)["Sub"] == 0
    assert operators(graph)["Div"] == 1 + (family == "convnext") * operators(graph)["Erf"]
    assert (1, 3, 1, 1) not in shapes(graph)
    assert (3, 1, 1) not in shapes(graph)


def test_positions_are_resized_ahead_of_time(vit):
    assert operators(vit)["Resize"] == 0
    assert shapes(vit)[(4 * 6, WIDTH)] == 1


@pytest.mark.parametrize("family", ["vit", "convnext"])
def test_interpolation_is_two_products(request, family):
    graph = request.getfixturevalue(family)
    assert operators(graph)["Resize"] == 0
    rows, columns = (4, 6) if family == "vit" else (2, 3)
    assert shapes(graph)[(64, rows)] == shapes(graph)[(96, columns)] == 1


def test_layer_scales_are_in_the_matrices(vit, convnext):
    """Each would be a Mul by a vector; the remaining Mul nodes belong to GELU."""
    assert operators(vit)["Mul"] == 2 * LAYERS
    weights = {weight.name: weight for weight in convnext.initializer}
    for node in convnext.node:
        if node.op_type == "Mul":
            constants = [numpy_helper.to_array(weights[name]) for name in node.input if name in weights]
            assert all(values.size == 1 for values in constants)
