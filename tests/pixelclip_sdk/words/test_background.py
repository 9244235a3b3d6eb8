import dataclasses
import shutil

import numpy as np
import pytest

from pixelclip_sdk import Bundle, BundleError, Segmenter, Vocabulary
from pixelclip_sdk.confidence import Calibration
from pixelclip_sdk.models import BUNDLED
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.words.background import Competitors

LITE = BUNDLED / "pixelclip-lite"


def vocabulary(angles, **synonyms):
    """Words in a plane, at angles in degrees."""
    rows = np.array([[np.cos(a), np.sin(a)] for a in np.radians(list(angles.values()))], np.float32)
    return Vocabulary(names=tuple(angles), embeddings=rows, synonyms=synonyms)


WORDS = vocabulary({"sky": 0, "grass": 70, "wall": 150, "dog": 220, "cat": 290})


def test_the_words_of_the_model_follow_the_classes():
    competition = Competitors(WORDS, Calibration(0.1)).of(vocabulary({"boat": 35}))
    np.testing.assert_array_equal(competition.embeddings[1:], WORDS.embeddings)
    assert competition.competing == 1
    assert competition.calibration.temperature == 0.1
    assert not competition.embeddings.flags.writeable


def test_a_word_that_is_asked_for_does_not_compete_with_itself():
    asked = vocabulary({"Pet": 180, "meadow": 69.9}, Pet=("Pet", "Dog"))
    rows = Competitors(WORDS).of(asked).embeddings[2:].tolist()
    assert WORDS.embeddings[3].tolist() not in rows  # "dog" is a synonym, by name.
    assert len(rows) == 4
    # By cosine: those of two random words are 0 ± 0.03, so one of nearly 1 is a synonym.
    rng = np.random.default_rng(0)
    random = rng.normal(size=(30, 1000)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    many = Vocabulary(names=[f"word {i}" for i in range(30)], embeddings=random)
    near = random[7] + 0.001 * rng.normal(size=1000).astype(np.float32)
    asked = Vocabulary(names=("seventh",), embeddings=(near / np.linalg.norm(near))[None])
    assert len(Competitors(many).of(asked).embeddings) == 1 + 29


def test_background_words_of_the_user_come_before_those_of_the_model():
    competition = Competitors(WORDS).of(vocabulary({"boat": 35}), vocabulary({"wall": 150, "boat": 35}))
    assert competition.competing == 2  # "boat" is a class.
    np.testing.assert_array_equal(competition.embeddings[1], WORDS.embeddings[2])
    assert len(competition.embeddings) == 2 + 4  # "wall" of the model is left out.


def test_an_engine_for_few_texts_gets_few():
    competition = Competitors(WORDS, most=3).of(vocabulary({"boat": 35}))
    np.testing.assert_array_equal(competition.embeddings[1:], WORDS.embeddings[:2])
    assert len(Competitors(WORDS, most=1).of(vocabulary({"boat": 35})).embeddings) == 1


def test_without_background_words_the_embeddings_are_the_vocabulary_s_own():
    words = vocabulary({"boat": 35})
    assert Competitors(None).of(words).embeddings is words.embeddings


def test_the_bundled_model_has_background_words_and_constants():
    bundle = Bundle.open(LITE)
    assert "background" not in bundle.vocabularies
    words = Vocabulary.load(bundle.file(bundle.vocabulary_files["background"]))
    assert words.text_hash == bundle.text_hash
    assert {"sky", "wall", "dog"} <= set(words.names)
    assert 0.01 < bundle.confidence["temperature"] < 1
    with Segmenter.from_pretrained(classes="dog, boat") as segmenter:
        result = segmenter.predict(np.zeros((32, 32, 3), np.uint8))
    assert 40 < len(result.rivals.everyday) < len(words)  # Without "dog".


def test_background_words_of_another_text_encoder_are_refused(tmp_path):
    shutil.copytree(LITE, tmp_path / "lite")
    bundle = Bundle.open(tmp_path / "lite")
    name = bundle.vocabulary_files["background"]
    words = Vocabulary.load(bundle.file(name))
    file = dataclasses.replace(words, text_hash="0" * 64).save(bundle.path / name)
    entry = {"size": file.stat().st_size, "sha256": sha256(file)}
    changed = dataclasses.replace(bundle, files={**bundle.files, name: entry})
    (bundle.path / "bundle.json").write_text(changed.to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match="another text encoder"):
        Segmenter.from_pretrained(bundle.path)


def test_words_that_fit_too_many_photos_are_damped():
    """Along the first axis words have three times the largest deviation, along the second half of it."""
    asked = vocabulary({"everywhere": 0, "rare": 90})
    rows = Competitors(None, damping=np.diag([3, 0.5]).astype(np.float32)).of(asked).embeddings
    np.testing.assert_allclose(rows, [[1 / 3, 0], [0, 1]], atol=1e-6)
    assert not rows.flags.writeable
    assert asked.embeddings[0].tolist() == [1, 0]  # The vocabulary is unchanged.


def test_the_bundled_model_damps_few_words():
    with Segmenter.from_pretrained(LITE, classes="dog, sky, chair") as segmenter:
        rows = segmenter._competitors.of(segmenter.vocabulary).embeddings[:3]
    lengths = np.linalg.norm(rows, axis=1)
    assert lengths[0] == pytest.approx(0.6, abs=0.05)
    np.testing.assert_allclose(lengths[1:], 1, atol=1e-3)
