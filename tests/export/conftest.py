"""Models that several test files share, because they take long to make."""

import json

import onnx
import open_clip
import pytest
import torch
from clip_reference import perturbed
from quick_lite import sentences_once  # noqa: F401

from export.to_onnx import trace_image_encoder
from training.models.lite.build import build_lite
from training.models.pair import EncoderPair

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16}


@pytest.fixture(scope="session")
def tiny() -> torch.nn.Module:
    """A tiny CLIP with random weights."""
    torch.manual_seed(0)
    return perturbed(open_clip.CLIP(32, VIT, TEXT, quick_gelu=True))


@pytest.fixture(scope="session")
def tiny_options(tiny, tmp_path_factory) -> list[str]:
    """Options of to_onnx.py for the same model, as a user's own configuration and checkpoint."""
    folder = tmp_path_factory.mktemp("own")
    configuration = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT}
    (folder / "tiny.json").write_text(json.dumps(configuration))
    torch.save(tiny.state_dict(), folder / "tiny.pth")
    return [
        *("--model", str(folder / "tiny.json"), "--checkpoint", str(folder / "tiny.pth")),
        *("--input-size", "64", "64"),
    ]


@pytest.fixture(scope="session")
def lite_pair() -> EncoderPair:
    """pixelclip-lite before its fine-tuning."""
    return build_lite()


@pytest.fixture(scope="session")
def lite_onnx(lite_pair) -> onnx.ModelProto:
    """Its image encoder as an fp32 graph."""
    return trace_image_encoder(lite_pair)
