"""Suggested words: what the picture shows, once; thousands of nouns are embedded once."""

import logging

import numpy as np
import pytest

from pixelclip_sdk import Segmenter, Vocabulary, VocabularyError
from pixelclip_sdk.words.classes import NOUNS, class_list
from pixelclip_sdk.words.suggestions import Suggestion, suggest_words


def vocabulary(**rows):
    """Names with the directions of their embeddings; underscores are spaces."""
    directions = np.array(list(rows.values()), np.float32)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return Vocabulary(names=[name.replace("_", " ") for name in rows], embeddings=units)


def grid(*cells):
    """Features of a grid of one row, unit length."""
    features = np.array([cells], np.float32)
    return features / np.linalg.norm(features, axis=2, keepdims=True)


def test_the_words_of_the_regions_with_score_and_share():
    nouns = vocabulary(accordion=(1, 0, 0, 0), acorn=(0, 1, 0, 0), abbey=(0, 0, 1, 0), adobe=(0, 0, 0, 1))
    found = suggest_words(grid((1, 0.2, 0, 0), (1, 0, 0.2, 0), (1, 0, 0.2, 0), (0, 1, 0, 0)), nouns, 2)
    assert [suggestion.name for suggestion in found] == ["accordion", "acorn"]
    assert [suggestion.share for suggestion in found] == [0.75, 0.25]
    assert found[0].score == pytest.approx(1 / np.sqrt(1.04))
    assert found[1].score == pytest.approx(1)


def test_near_synonyms_are_suggested_once_and_common_words_first():
    """ "guide dog" fits best, by less than a common word is preferred."""
    nouns = vocabulary(guide_dog=(1, 0, 0), dog=(1, 0.3, 0), acorn=(0, 0, 1))
    found = suggest_words(grid((1, 0.1, 0), (1, 0.1, 0), (0, 0, 1)), nouns, 3)
    assert [suggestion.name for suggestion in found] == ["dog", "acorn"]


def test_words_for_no_particular_thing_are_left_out():
    nouns = vocabulary(vehicle=(1, 0), truck=(0.5, 1))
    assert [suggestion.name for suggestion in suggest_words(grid((1, 0)), nouns, 2)] == ["truck"]


def test_a_word_that_wins_nowhere_has_its_largest_cosine():
    nouns = vocabulary(accordion=(1, 0), acorn=(0, 1))
    assert suggest_words(grid((1, 0), (1, 0.5)), nouns, 2)[1] == Suggestion(
        "acorn", pytest.approx(0.5 / np.sqrt(1.25)), 0.0
    )


class Hashed:
    """A text encoder with a random, fixed direction for every text."""

    templates = ("{}",)
    text_hash = "f" * 64
    calls = 0

    def check_words(self, words):
        pass

    def encode(self, texts):
        self.calls += 1
        rows = [np.random.default_rng(list(text.encode())).normal(size=3) for text in texts]
        return np.array(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture
def hashed(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / "home"))

    def make():
        return Segmenter(fake._backend, fake._input, text_encoder=Hashed())

    return make


def test_nouns_are_embedded_once_and_kept_on_disk(hashed, patches, tmp_path, caplog):
    first, second = hashed(), hashed()
    words = first.suggest(patches, 3)
    assert len(words) == 3
    assert {word.name for word in words} <= set(class_list(NOUNS))
    assert first.suggest(patches, 3) == words
    assert first._resolver._encoder.calls == 1
    assert "embedding the 2878 words of everyday-nouns, once" in caplog.text
    assert second.suggest(patches, 3) == words
    assert second._resolver._encoder.calls == 0
    (file,) = (tmp_path / "home" / "vocabularies").iterdir()
    file.write_bytes(b"damaged")
    third = hashed()
    assert third.suggest(patches, 3) == words
    assert third._resolver._encoder.calls == 1
    assert Vocabulary.load(file).text_hash == "f" * 64


def test_a_cache_that_cannot_be_written_is_no_error(hashed, patches, tmp_path, caplog):
    (tmp_path / "home").write_text("a file, not a folder")
    with caplog.at_level(logging.WARNING):
        assert hashed().suggest(patches)
    assert "not kept for the next time" in caplog.text


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_a_number_of_words_is_expected(hashed, patches, k):
    with pytest.raises(VocabularyError, match="expected the number of words, at least 1"):
        hashed().suggest(patches, k)
