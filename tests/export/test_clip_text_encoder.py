"""The text encoder of bundles from open_clip models: CLIP's inputs and tokenizer."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pixelclip_sdk import Bundle, BundleError, Segmenter, VocabularyError
from pixelclip_sdk.bundle import IMAGE_ENCODER, MANIFEST, TEXT_ENCODER, TOKENIZER
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models.clip.tokenizer import clip_tokenizer


def clip_like_graph(table: np.ndarray, inputs: list[str]) -> onnx.ModelProto:
    """A causal text encoder with CLIP's inputs: the sum of the tokens' rows up to end of text, normalised."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], axis=0),
        helper.make_node("CumSum", ["rows", "one"], ["sums"]),
        helper.make_node("ArgMax", ["input_ids"], ["end"], axis=1, keepdims=1),
        helper.make_node("GatherND", ["sums", "end"], ["last"], batch_dims=1),
        helper.make_node("LpNormalization", ["last"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"]) for name in inputs],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", table.shape[1]])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.int64(1), "one")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.fixture(scope="module")
def clip_like(tmp_path_factory):
    """Makes a bundle with CLIP's tokenizer and a text encoder of the given inputs; and its token table."""
    source = find_bundle("pixelclip-lite")
    table = np.random.default_rng(0).standard_normal((49408, 16)).astype(np.float32)

    def make(*inputs: str) -> tuple[Bundle, np.ndarray]:
        folder: Path = tmp_path_factory.mktemp("clip")
        onnx.save(clip_like_graph(table, list(inputs)), folder / TEXT_ENCODER)
        clip_tokenizer().save(str(folder / TOKENIZER), pretty=False)
        (folder / IMAGE_ENCODER).write_bytes(b"not used here")
        files = {
            path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in folder.iterdir()
        }
        manifest = dataclasses.replace(source, path=folder, files=files, embedding_dim=16).manifest()
        (folder / MANIFEST).write_text(json.dumps(manifest))
        return Bundle.open(folder), table

    return make


def test_a_clip_encoder_gets_the_ids_alone_framed_and_padded_on_the_right(clip_like):
    bundle, table = clip_like("input_ids")
    encoder = TextEncoder(bundle)
    # CLIP's ids of these texts; "!" has the id 0 that pads as well.
    ids = {
        "a photo of a cat": [49406, 320, 1125, 539, 320, 2368, 49407],
        "cat": [49406, 2368, 49407],
        "!": [49406, 256, 49407],
        "": [49406, 49407],
    }
    rows = encoder.encode(list(ids))
    for row, tokens in zip(rows, ids.values(), strict=True):
        expected = table[tokens].sum(axis=0)
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-5)


def test_a_clip_encoder_refuses_what_is_too_long_or_nothing(clip_like):
    encoder = TextEncoder(clip_like("input_ids")[0])
    encoder.encode(["cat " * 75])
    with pytest.raises(VocabularyError, match="more tokens"):
        encoder.encode(["sofa", "cat " * 76])
    encoder.check_words(["cat", "🐱", "Ⅷ", "日本"])
    with pytest.raises(VocabularyError, match="knows no part"):
        encoder.check_words(["cat", "\x01"])


def test_a_text_encoder_of_other_inputs_is_refused(clip_like):
    with pytest.raises(BundleError, match="takes tokens, input_ids; expected input_ids"):
        TextEncoder(clip_like("tokens", "input_ids")[0])


def test_a_text_encoder_of_another_width_is_refused_and_the_words_stay(clip_like, lite):
    """Also one that was passed to the segmenter."""
    bundle, _ = clip_like("input_ids")
    wrong = dataclasses.replace(bundle, embedding_dim=384)
    with pytest.raises(
        BundleError, match=r"returned float32 \(1, 16\) for 1 texts; expected float32 \(1, 384\)"
    ):
        TextEncoder(wrong).encode(["cat"])
    own = Segmenter(lite._backend, lite.bundle.input, text_encoder=TextEncoder(bundle))
    own.set_classes(lite.vocabulary)
    with pytest.raises(VocabularyError, match="16 wide, this model's 384"):
        own.set_classes(["dog"])
    assert own.vocabulary is lite.vocabulary
