import json

import numpy as np
import pytest

from pixelclip_sdk import BundleError, VocabularyError
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.text import TextEncoder


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(find_bundle("pixelclip-lite"))


def test_embeddings_are_unit_rows_in_the_order_of_the_texts(encoder):
    texts = ["a photo of a cat", "x", "a photo of a very long double-decker bus at night"]
    rows = encoder.encode(texts)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    for text, row in zip(texts, rows, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], row, atol=1e-5)


def test_meaning_shows_in_the_embeddings(encoder):
    rows = encoder.encode([encoder.templates[0].format(w) for w in ("sofa", "couch", "fire engine")])
    assert rows[0] @ rows[1] > 0.5
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3


def test_more_texts_than_a_batch(encoder):
    texts = [f"thing number {i}" for i in range(150)]
    rows = encoder.encode(texts)
    assert rows.shape == (150, encoder.encode(["x"]).shape[1])
    np.testing.assert_allclose(rows[149], encoder.encode(texts[149:])[0], atol=1e-5)


@pytest.mark.parametrize("word", ["🐱", "🚗🚗", "\u200b\U0001f600"])
def test_words_without_a_known_part_are_refused(encoder, word):
    with pytest.raises(VocabularyError, match="knows no part"):
        encoder.check_words(["cat", word])


@pytest.mark.parametrize("word", ["café", "Straße", "cat 🐱", "3D-printer", "naïve", "Katze"])
def test_words_with_a_known_part_are_taken(encoder, word):
    encoder.check_words([word])
    assert np.isfinite(encoder.encode([word])).all()


def test_a_text_beyond_the_encoders_length_is_refused(encoder):
    with pytest.raises(VocabularyError, match="more tokens"):
        encoder.encode(["cat " * 2000])


def test_a_bundle_without_a_text_encoder_says_so(tmp_path):
    source = find_bundle("pixelclip-lite")
    fields = source.manifest()
    fields["files"] = {"image_encoder.onnx": fields["files"]["image_encoder.onnx"]}
    (tmp_path / "bundle.json").write_text(json.dumps(fields))
    (tmp_path / "image_encoder.onnx").write_bytes(source.file("image_encoder.onnx").read_bytes())
    with pytest.raises(BundleError, match="no text encoder"):
        TextEncoder(find_bundle(tmp_path))
