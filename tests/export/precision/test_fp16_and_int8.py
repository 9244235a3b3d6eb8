"""Conversion to fp16 and int8 of a tiny ViT with random weights, and of pixelclip-lite with its real ones."""

import copy
import dataclasses
import functools
import re
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from open_clip.transformer import VisionTransformer
from torch.export import Dim

from export.graph.lean import LeanImageEncoder
from export.graph.trace import trace
from export.precision.fp16 import largest_values, rounding, to_fp16
from export.precision.int8 import to_int8
from export.precision.layers import LayerReport, heavy_layers
from export.trt import make_symmetric
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.preprocess import fit
from training.models.clip.vit import DenseViT
from training.models.dense import DenseImageEncoder

DIM = 32
SIZE = 64


def bundled_photos() -> list[np.ndarray]:
    """The photos inside scikit-image's wheel."""
    import skimage.data

    return [np.asarray(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee")]


def unit_rows(count: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def vit() -> onnx.ModelProto:
    torch.manual_seed(0)
    visual = VisionTransformer(SIZE, 16, 64, layers=3, heads=2, mlp_ratio=4, output_dim=DIM).eval()
    lean = LeanImageEncoder(DenseImageEncoder(DenseViT(visual)), (SIZE, SIZE)).eval()
    return trace(
        lean,
        [torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8), torch.zeros(5, DIM)],
        inputs=["image", "text"],
        outputs=["logits", "features"],
        dynamic={"image": {0: Dim("batch")}, "text": {0: Dim("classes")}},
    )


@pytest.fixture(scope="module")
def vit_photos() -> list[dict[str, np.ndarray]]:
    spec = InputSpec(height=SIZE, width=SIZE, multiple=16, fixed=True, keep_aspect=False)
    return [{"image": fit(photo, spec)[None], "text": unit_rows(5, DIM)} for photo in bundled_photos()]


@pytest.fixture(scope="module")
def lite_photos(lite_pair) -> list[dict[str, np.ndarray]]:
    words = ["cat", "sofa", "grass", "cup", "table", "person", "rocket", "wall"]
    tokens = lite_pair.tokenizer.encode_batch([lite_pair.templates[0].format(word) for word in words])
    ids, mask = torch.tensor([t.ids for t in tokens]), torch.tensor([t.attention_mask for t in tokens])
    with torch.no_grad():
        text = lite_pair.text(ids, mask).numpy()
    spec = dataclasses.replace(lite_pair.input, height=192, width=256)  # Smaller than usual, to save time.
    return [{"image": fit(photo, spec)[None], "text": text} for photo in bundled_photos()]


def run(model: onnx.ModelProto, batch: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits", "features"], batch)


def agreement(one: onnx.ModelProto, other: onnx.ModelProto, batches: list[dict[str, np.ndarray]]) -> float:
    return float(np.mean([np.mean(run(one, b)[0].argmax(1) == run(other, b)[0].argmax(1)) for b in batches]))


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    graph = inferred.graph
    known = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    return known | {w.name: w.data_type for w in graph.initializer}


def test_fp16_halves_the_files_and_keeps_the_labels(vit, vit_photos, lite_onnx, lite_photos):
    for model, photos in ((vit, vit_photos), (lite_onnx, lite_photos)):
        half, _ = to_fp16(model, photos[:1])
        assert half.ByteSize() < 0.55 * model.ByteSize() + 30_000  # The tiny ViT is half nodes.
        assert agreement(rounding(half), model, photos) >= 0.99


def test_rounding_gives_the_cpu_the_range_of_fp16():
    """Two fp16 products with an intermediate value of 3·10⁵, beyond fp16."""
    half = TensorProto.FLOAT16
    large, small = np.full((4, 4), 300, np.float16), np.full((4, 4), 2e-4, np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["x16"], to=half),
        helper.make_node("MatMul", ["x16", "large"], ["between"]),
        helper.make_node("MatMul", ["between", "small"], ["y16"]),
        helper.make_node("Cast", ["y16"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "two products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(large, "large"), numpy_helper.from_array(small, "small")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    feeds = {"x": np.full((1, 4), 250, np.float32)}

    def run(model):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, feeds)[0]

    assert np.isfinite(run(model)).all()  # If this fails, ONNX Runtime computes in fp16: remove `rounding`.
    assert np.isinf(run(rounding(model))).all()


def test_fp16_keeps_norms_softmax_cosines_and_the_interface_in_fp32(vit, vit_photos):
    half, _ = to_fp16(vit, vit_photos)
    known = types(half)
    for node in half.graph.node:
        fp32 = known[node.output[0]] == TensorProto.FLOAT
        if node.op_type in ("LayerNormalization", "Softmax", "ReduceL2", "Div"):
            assert fp32, node.op_type
        if node.op_type in ("Conv", "Sigmoid"):
            assert known[node.output[0]] == TensorProto.FLOAT16
    for value in (*half.graph.input, *half.graph.output):
        expected = TensorProto.UINT8 if value.name == "image" else TensorProto.FLOAT
        assert value.type.tensor_type.elem_type == expected


def test_fp16_casts_only_where_the_type_changes(vit, vit_photos):
    half, _ = to_fp16(vit, vit_photos)
    known = types(half)
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    made = {node.output[0]: node for node in half.graph.node}
    used = {name for node in half.graph.node for name in node.input}
    for cast in casts:
        assert known[cast.input[0]] != known[cast.output[0]]
        assert cast.output[0] in used
        before = made.get(cast.input[0])
        assert before is None or before.op_type != "Cast"
    fp32 = Counter(node.op_type for node in half.graph.node)
    # Two about each norm and softmax, that of the picture, and one before the head.
    assert len(casts) <= 2 * (fp32["LayerNormalization"] + fp32["Softmax"]) + 2


def test_fp16_leaves_large_tensors_in_fp32(vit, vit_photos):
    """The weights fit into fp16, the activations do not: nodes that read or write those stay fp32."""
    big = copy.deepcopy(vit)
    product = next(node for node in big.graph.node if node.op_type == "MatMul")
    weight = next(w for w in big.graph.initializer if w.name == product.input[1])
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(3e5), weight.name))
    assert largest_values(big, vit_photos)[product.output[0]] > 65504 / 4
    half, _ = to_fp16(big, vit_photos)
    kept = next(node for node in half.graph.node if weight.name in node.input)
    assert types(half)[kept.output[0]] == types(half)[weight.name] == TensorProto.FLOAT
    assert np.isfinite(run(half, vit_photos[0])[0]).all()


def test_fp16_reports_what_stays_fp32(vit, vit_photos):
    _, layers = to_fp16(vit, vit_photos)
    kinds = Counter(node.op_type for node in vit.graph.node)
    assert layers.converted == layers.total == len(heavy_layers(vit.graph)) > 10
    assert f"{kinds['LayerNormalization']} LayerNormalization" in layers.kept
    assert f"{kinds['Softmax']} Softmax" in layers.kept
    assert "cosines" in layers.text()
    _, fewer = to_fp16(scaled(vit, "tower.proj", 1e5), vit_photos)
    assert fewer.converted == layers.total - 1
    assert re.fullmatch(r"values up to [\d.e+]+ on the photos", fewer.kept["tower/MatMul"])
    assert f"{layers.total - 1} of {layers.total} layers compute in fp16" in fewer.text()


@pytest.fixture(scope="module")
def lite_98(lite_onnx, lite_photos) -> tuple[onnx.ModelProto, LayerReport]:
    """int8 with 98 % of the labels, and its report."""
    return to_int8(lite_onnx, lite_photos, gate=0.98)


def test_int8_reports_what_stays_fp32(vit, vit_photos, lite_onnx, lite_98):
    """Each layer has its module's name; expensive ones have their cost."""
    _, layers = to_int8(vit, vit_photos, gate=0.5)
    assert layers.converted == 2 * 4 + 3 + 1
    assert layers.total == layers.converted + 1
    assert layers.kept["tower.patches/Conv"] == "it reads the pixels"
    small, layers = lite_98
    made = {node.output[0]: node for node in small.graph.node}
    computed = [
        node
        for node in small.graph.node
        if node.op_type in ("Conv", "MatMul")
        and node.input[0] in made
        and made[node.input[0]].op_type == "DequantizeLinear"
        and made[made[node.input[0]].input[0]].op_type == "QuantizeLinear"
    ]
    assert layers.converted == len(computed)
    # The head's two products of one input become one.
    assert layers.total == len(heavy_layers(lite_onnx.graph)) - 1
    costs = [
        why for why in layers.kept.values() if why.startswith("int8 here alone changes the features by ")
    ]
    numbers = [float(why.split(" by ")[1].split()[0]) for why in costs]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 0
    lines = layers.text().splitlines()
    assert len(lines) == 10
    assert "more, all in bundle.json" in lines[-1]


def test_fp16_leaves_weights_beyond_its_range_in_fp32(vit, vit_photos):
    big = scaled(vit, "tower.positions", 1e8)
    half, layers = to_fp16(big, vit_photos)
    assert any(why.startswith("values up to") for why in layers.kept.values())
    assert types(half)["tower.positions"] == TensorProto.FLOAT
    assert agreement(rounding(half), big, vit_photos) >= 0.99


def scaled(model: onnx.ModelProto, name: str, factor: float) -> onnx.ModelProto:
    """The model with one weight multiplied by a factor."""
    model = copy.deepcopy(model)
    weight = next(weight for weight in model.graph.initializer if weight.name == name)
    values = numpy_helper.to_array(weight) * np.float32(factor)
    weight.CopyFrom(numpy_helper.from_array(values, name))
    return model


@pytest.mark.parametrize("convert", [to_fp16, functools.partial(to_int8, gate=0.975)], ids=["fp16", "int8"])
def test_no_photos_are_refused(vit, convert):
    with pytest.raises(ValueError, match="no calibration photos"):
        convert(vit, [])


@pytest.mark.parametrize("convert", [to_fp16, functools.partial(to_int8, gate=0.975)], ids=["fp16", "int8"])
def test_the_same_bytes_every_time_and_the_source_untouched(vit, vit_photos, convert):
    before = vit.SerializeToString()
    first, second = (convert(vit, vit_photos)[0].SerializeToString() for _ in range(2))
    assert first == second
    assert vit.SerializeToString() == before


@pytest.mark.parametrize("convert", [to_fp16, functools.partial(to_int8, gate=0.975)], ids=["fp16", "int8"])
def test_batch_and_words_stay_free(vit, vit_photos, convert):
    model, _ = convert(vit, vit_photos)
    image = np.concatenate([batch["image"] for batch in vit_photos])
    logits, features = run(model, {"image": image, "text": unit_rows(9, DIM)})
    assert logits.shape == (3, 9, 64, 64)
    np.testing.assert_allclose(np.linalg.norm(features, axis=-1), 1, atol=1e-5)


def test_int8_is_symmetric_and_of_plain_onnx(vit, vit_photos):
    model, _ = to_int8(vit, vit_photos, gate=0.5)
    weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
    pairs = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = weights[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def test_int8_runs_the_products_of_a_transformer_in_integers(vit, vit_photos, tmp_path):
    """ONNX Runtime's fused kernels: one for each product, none left unfused."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model, _ = to_int8(vit, vit_photos, gate=0.5)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    # Two blocks of four products, the last of three, and the projection.
    assert found["MatMulIntegerToFloat"] == 2 * 4 + 3 + 1
    assert found["DequantizeLinear"] == 0


@pytest.fixture(scope="module")
def lite_int8(lite_onnx, lite_photos) -> onnx.ModelProto:
    return to_int8(lite_onnx, lite_photos, gate=0.7)[0]


def test_int8_runs_a_convolutional_network_in_integers(lite_int8, lite_onnx, lite_photos, tmp_path):
    """All convolutions but the first, which reads pixels, and the last, whose output is compared in fp32."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(lite_int8.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert found["QLinearConv"] == 47
    assert found["QLinearAdd"] == 9
    assert agreement(lite_int8, lite_onnx, lite_photos) >= 0.7
    for batch in lite_photos:
        features, expected = run(lite_int8, batch)[1], run(lite_onnx, batch)[1]
        assert (features * expected).sum(-1).mean() > 0.95
    assert lite_int8.ByteSize() < 0.35 * lite_onnx.ByteSize()


def test_int8_of_a_convolutional_network_is_made_symmetric_for_tensorrt(lite_int8, lite_photos):
    symmetric = copy.deepcopy(lite_int8)
    make_symmetric(symmetric)
    zeros = {n.input[2] for n in symmetric.graph.node if n.op_type == "QuantizeLinear"}
    weights = {w.name: numpy_helper.to_array(w) for w in symmetric.graph.initializer}
    assert all(weights[name].dtype == np.int8 and not weights[name].any() for name in zeros)
    for batch in lite_photos:
        features, expected = run(symmetric, batch)[1], run(lite_int8, batch)[1]
        assert (features * expected).sum(-1).mean() > 0.95


def test_int8_leaves_layers_in_fp32_until_the_gate_is_met(lite_98, lite_onnx, lite_photos):
    small, _ = lite_98
    assert small.ByteSize() < 0.35 * lite_onnx.ByteSize()
    assert agreement(small, lite_onnx, lite_photos) >= 0.98
    quantised = sum(node.op_type == "QuantizeLinear" for node in small.graph.node)
    assert 0 < quantised < 49


def test_weights_that_are_only_stored_use_all_8_bits(lite_98):
    """Weights of integer products use 7 bits: the sum of two products has to fit into 16 bits."""
    small, _ = lite_98
    weights = {weight.name: numpy_helper.to_array(weight) for weight in small.graph.initializer}
    made = {name: node for node in small.graph.node for name in node.output}
    stored, computed = [], []
    for node in [n for n in small.graph.node if n.op_type in ("Conv", "MatMul")]:
        source = made.get(node.input[1])
        depthwise = any(a.name == "group" and a.i > 1 for a in node.attribute)
        if source is not None and source.op_type == "Mul":
            stored.append(weights[made[source.input[0]].input[0]])
        elif source is not None and source.op_type == "DequantizeLinear" and not depthwise:
            computed.append(weights[source.input[0]])
    assert {values.dtype for values in stored + computed} == {np.dtype(np.int8)}
    assert min(np.abs(values.astype(int)).max() for values in stored) > 100
    assert max(np.abs(values.astype(int)).max() for values in computed) <= 64


def test_int8_refuses_a_gate_out_of_reach(vit, vit_photos, monkeypatch):
    monkeypatch.setattr("export.precision.int8._costs", lambda *_: {})
    with pytest.raises(ValueError, match=r"less than 100\.00% of the labels agree; lower --gate"):
        to_int8(vit, vit_photos, gate=1.0)


@pytest.mark.parametrize("precision", ["fp16", "int8", "both"])
def test_tensorrt_builds_an_engine(vit, vit_photos, precision):
    trt = pytest.importorskip("tensorrt_rtx")
    model = vit if precision == "fp16" else to_int8(vit, vit_photos, gate=0.5)[0]
    if precision != "int8":
        model, _ = to_fp16(model, vit_photos)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString()), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]
    profile = builder.create_optimization_profile()
    profile.set_shape("image", *[(n, SIZE, SIZE, 3) for n in (1, 1, 2)])
    profile.set_shape("text", *[(k, DIM) for k in (1, 5, 512)])
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
