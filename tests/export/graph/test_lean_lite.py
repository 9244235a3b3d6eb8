"""The exported graph of pixelclip-lite computes the same as the trained encoder."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.graph.lean_lite import LeanLiteEncoder
from training.models.pair import EncoderPair


def batch(pair: EncoderPair, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=random)
    return image, nn.functional.normalize(torch.randn(7, pair.dim, generator=random), dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (64, 160), (352, 448)])
def test_nothing_but_rounding_differs(lite_pair, lite_onnx, size):
    image, text = batch(lite_pair, size)
    expected = lite_pair.image(image, text)
    session = onnxruntime.InferenceSession(lite_onnx.SerializeToString(), providers=["CPUExecutionProvider"])
    exported = session.run(["logits", "features"], {"image": image.numpy(), "text": text.numpy()})
    for found in (LeanLiteEncoder(lite_pair.image)(image, text), exported):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=3e-6)


def test_the_encoder_is_not_changed(lite_pair):
    before = {name: value.clone() for name, value in lite_pair.image.state_dict().items()}
    LeanLiteEncoder(lite_pair.image)
    after = lite_pair.image.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_graph_is_lean(lite_onnx):
    kinds = Counter(node.op_type for node in lite_onnx.graph.node)
    assert not {"Shape", "Expand", "BatchNormalization"} & kinds.keys()
    assert kinds["Concat"] == 1  # of the rows of the neighbourhood
    # One of the scales is a cell's; the others would be of whole maps.
    assert (kinds["Mul"], kinds["Div"], kinds["Transpose"]) == (1, 2, 4)
    readers = [node.op_type for node in lite_onnx.graph.node if "image" in node.input]
    assert readers == ["Cast"]  # TensorRT refuses others.


def test_every_convolution_takes_in_its_relu(lite_onnx, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(lite_onnx.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert not {"Clip", "BatchNormalization"} & kinds.keys()
    assert kinds["Conv"] == 49
