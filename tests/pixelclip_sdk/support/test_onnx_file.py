import numpy as np
import pytest

from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.onnx_file import keeps_tensors_elsewhere


def test_the_bundled_models_keep_all_tensors_inside():
    for name in ("image_encoder.onnx", "text_encoder.onnx"):
        assert not keeps_tensors_elsewhere(find_bundle("pixelclip-lite").file(name).read_bytes())


def models():
    """One model for each place where a tensor may be, by name of the place."""
    onnx = pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    def tensor():
        made = numpy_helper.from_array(np.zeros(4, np.float32), "w")
        onnx.external_data_helper.set_external_data(made, "weights.bin")
        made.ClearField("raw_data")
        return made

    def graph(nodes=(), **fields):
        return helper.make_graph(list(nodes), "g", [], [], **fields)

    def sparse():
        made = onnx.SparseTensorProto(dims=[4])
        made.values.CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), "v"))
        made.indices.CopyFrom(tensor())
        return made

    constant = helper.make_node("Constant", [], ["y"], value=tensor())
    inner = graph(initializer=[tensor()])
    yield "initializer", helper.make_model(inner)
    yield "constant", helper.make_model(graph([constant]))
    yield "several", helper.make_model(graph([helper.make_node("Many", [], ["y"], values=[tensor()])]))
    yield "branch", helper.make_model(graph([helper.make_node("If", ["x"], ["y"], then_branch=inner)]))
    yield "branches", helper.make_model(graph([helper.make_node("Any", ["x"], ["y"], graphs=[inner])]))
    yield "sparse", helper.make_model(graph(sparse_initializer=[sparse()]))
    attribute = onnx.AttributeProto(name="s", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse())
    node = onnx.NodeProto(op_type="Constant", output=["y"], attribute=[attribute])
    yield "sparse constant", helper.make_model(graph([node]))
    function = onnx.FunctionProto(name="f", node=[constant])
    yield "function", helper.make_model(graph(), functions=[function])
    default = helper.make_attribute("value", tensor())
    function = onnx.FunctionProto(name="f", attribute_proto=[default])
    yield "default of a function", helper.make_model(graph(), functions=[function])
    training = onnx.TrainingInfoProto(initialization=inner)
    yield "training", onnx.ModelProto(training_info=[training])


def test_a_tensor_in_another_file_is_seen_wherever_it_is():
    found = {name: keeps_tensors_elsewhere(model.SerializeToString()) for name, model in models()}
    assert len(found) == 10
    assert found == dict.fromkeys(found, True)


def test_a_location_without_a_file_counts_too():
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))
    assert keeps_tensors_elsewhere(model.SerializeToString())
    tensor.data_location = onnx.TensorProto.DEFAULT
    model = onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))
    assert not keeps_tensors_elsewhere(model.SerializeToString())


@pytest.mark.parametrize("content", [b"nothing", b"\x3a\xff", b"\x3a\x05ab", b"\x80", b"\x08" + b"\xff" * 11])
def test_damaged_content_is_an_error(content):
    with pytest.raises(ValueError, match="damaged"):
        keeps_tensors_elsewhere(content)
