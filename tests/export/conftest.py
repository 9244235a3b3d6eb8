"""Models and bundles that several test files share, because they take long to make."""

import onnx
import pytest

from export.to_onnx import trace_image_encoder
from training.models.lite.build import build_lite
from training.models.pair import EncoderPair


@pytest.fixture(scope="session")
def lite_pair() -> EncoderPair:
    """pixelclip-lite before its fine-tuning."""
    return build_lite()


@pytest.fixture(scope="session")
def lite_onnx(lite_pair) -> onnx.ModelProto:
    """Its image encoder as an fp32 graph."""
    return trace_image_encoder(lite_pair)
