import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from pixelclip_sdk import Bundle, BundleError, Segmenter, VocabularyError, class_list
from pixelclip_sdk.bundle import MANIFEST, TOKENIZER
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.words import text_encoder
from pixelclip_sdk.words.text_encoder import TextEncoder


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(find_bundle("pixelclip-lite"))


def test_embeddings_are_unit_rows_in_the_order_of_the_texts(encoder):
    texts = ["a photo of a cat", "x", "a photo of a very long double-decker bus at night"]
    rows = encoder.encode(texts)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    for text, row in zip(texts, rows, strict=True):
        np.testing.assert_allclose(encoder._encoded([text])[0], row, atol=1e-5)


def test_meaning_shows_in_the_embeddings(encoder):
    rows = encoder.encode([encoder.templates[0].format(w) for w in ("sofa", "couch", "fire engine")])
    assert rows[0] @ rows[1] > 0.5
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3


def test_more_texts_than_a_batch(encoder):
    texts = [f"thing number {i}" for i in range(150)]
    rows = encoder.encode(texts)
    assert rows.shape == (150, encoder.encode(["x"]).shape[1])
    np.testing.assert_allclose(rows[149], encoder._encoded(texts[149:])[0], atol=1e-5)


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


@pytest.mark.parametrize("name", ["tok-1203.json", "tok-355.json", "tok-2690.json"])
def test_a_tokenizer_that_panics_is_a_damaged_bundle(name, tmp_path):
    """The first fails to load, the others when they are used."""
    folder = tmp_path / "lite"
    source = find_bundle("pixelclip-lite")
    shutil.copytree(source.path, folder)
    shutil.copy(Path(__file__).parent / "tokenizers" / name, folder / TOKENIZER)
    entry = {"size": (folder / TOKENIZER).stat().st_size, "sha256": sha256(folder / TOKENIZER)}
    manifest = source.manifest()
    manifest["files"][TOKENIZER] = entry
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"tokenizer\.json (fails|is not a tokenizer)"):
        TextEncoder(Bundle.open(folder))


def test_words_that_the_encoder_may_not_know_are_named(encoder, caplog):
    assert encoder.unfamiliar_words(["cat", "Katze", "qwxzy", "fire engine", "snorkle bag"]) == [
        "Katze",
        "qwxzy",
        "snorkle bag",
    ]
    with Segmenter.from_pretrained(classes=["cat", "qwxzy"]) as segmenter:
        assert "may not know 'qwxzy'" in caplog.text
        assert "'cat'" not in caplog.text
        assert segmenter.unfamiliar_words(segmenter.vocabulary) == ["qwxzy"]


def test_no_word_of_a_list_is_unfamiliar(encoder):
    nouns = list(class_list("everyday-nouns"))
    assert encoder.unfamiliar_words(nouns) == []
    # Without the exception for the lists, few of them would be: the rule is no guess at rare words.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_encoder, "_listed_words", frozenset)
        assert len(encoder.unfamiliar_words(nouns)) < 0.1 * len(nouns)


def test_slow_work_is_announced(encoder, caplog, monkeypatch):
    monkeypatch.setattr(text_encoder, "_SLOW_S", 0)
    encoder.encode([f"slow {i}" for i in range(64)])
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        encoder.encode([f"slower {i}" for i in range(65)])
    assert "embedding 65 texts takes about" in caplog.text


def test_texts_that_were_embedded_before_are_not_embedded_again(encoder, monkeypatch):
    first = encoder.encode(["a red mug", "a blue mug"])
    ran = []
    run = encoder._run
    monkeypatch.setattr(encoder, "_run", lambda ids, mask: ran.append(len(ids)) or run(ids, mask))
    again = encoder.encode(["a blue mug", "a green mug", "a red mug", "a blue mug"])
    assert ran == [1]
    np.testing.assert_array_equal(again[[2, 0, 3]], first[[0, 1, 1]])
    again[:] = 0  # The caller's own array.
    np.testing.assert_array_equal(encoder.encode(["a red mug", "a blue mug"]), first)
    assert ran == [1]


def test_few_texts_are_kept(encoder, monkeypatch):
    monkeypatch.setattr(text_encoder, "_KEPT", 3)
    encoder.encode(["one", "two", "three", "four", "five"])
    assert list(encoder._kept) == ["three", "four", "five"]
