"""Classes from pictures: pooled features, joined to words, saved, refused by other models."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import ImageError, Segmenter, Vocabulary, VocabularyError
from pixelclip_sdk.words.image_prompts import balanced, embed_examples

GREEN, RED = (0, 255, 0), (255, 0, 0)


class Colours:
    """Features are the colours of 8×8 cells, as three of eight dimensions."""

    def features(self, image):
        cells = np.asarray(image, np.float32).reshape(4, 8, 4, 8, 3).mean(axis=(1, 3)) / 255
        return np.concatenate([cells, np.zeros((4, 4, 5), np.float32)], axis=2)


WORDS = np.eye(8, dtype=np.float32)[:6]


def half_red():
    """32×32: green, its left 12 pixels red, and the mask of the red ones."""
    image = np.full((32, 32, 3), GREEN, np.uint8)
    image[:, :12] = RED
    return image, image[:, :, 0] > 0


def test_the_embedding_is_the_mean_feature_inside_the_mask():
    image, mask = half_red()
    names, rows = embed_examples({"red": [(image, mask)], "all": [image]}, Colours(), WORDS)
    assert names == ("red", "all")
    # Cell columns 0 (red) and 1 (half red, half green), of which the mask covers all and a half.
    inside = np.array([1 + 0.5 * 0.5, 0.5 * 0.5, 0]) / 1.5
    everything = np.array([1.5, 2.5, 0]) / 4
    for row, mean in zip(rows, (inside, everything), strict=True):
        np.testing.assert_allclose(row[:3] / np.linalg.norm(row[:3]), mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_examples_of_one_class_count_alike():
    red, green = np.full((32, 32, 3), RED, np.uint8), np.full((32, 32, 3), GREEN, np.uint8)
    corner = np.zeros((32, 32), bool)
    corner[:8, :8] = True
    _, rows = embed_examples({"both": [(red, corner), green]}, Colours(), WORDS)
    assert rows[0, 0] == pytest.approx(rows[0, 1])


def test_cosines_are_scaled_where_features_and_words_leave_a_direction_free():
    rng = np.random.default_rng(0)
    cells = np.concatenate([rng.normal(size=(50, 6)), np.zeros((50, 2))], axis=1).astype(np.float32)
    means = cells[:3] * 5
    rows = balanced(means, cells, WORDS, 0.6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(cells @ rows.T, 0.6 * cells @ units.T, atol=1e-5)


def test_a_picture_and_words_share_a_vocabulary(lite, photo, tmp_path):
    own = Vocabulary.from_images({"my cat": [photo, (photo, np.ones(photo.shape[:2]))]}, lite)
    assert own.synonyms == {"my cat": ()}
    assert own.image_hash == lite.bundle.image_hash
    words = lite.embed(["keyboard", "grass", "car", "sky"])
    with Segmenter.from_pretrained(classes=words + own) as segmenter:
        result = segmenter.predict(photo)
        assert segmenter.vocabulary.names == ("keyboard", "grass", "car", "sky", "my cat")
        assert next(iter(result.areas())) == "my cat"
        loaded = Vocabulary.load((words + own).save(tmp_path / "mixed.npz"))
        assert loaded.image_hash == own.image_hash
        assert loaded.synonyms["my cat"] == ()
        segmenter.set_classes(loaded)
        assert (segmenter.predict(photo).labels == result.labels).all()
        other = dataclasses.replace(own, image_hash="0" * 64)
        with pytest.raises(VocabularyError, match="classes from pictures that another model saw"):
            segmenter.set_classes(other)
        with pytest.raises(VocabularyError, match="different image_hash"):
            own + dataclasses.replace(other, names=("another",))


def test_joining_wants_one_model_and_different_names(colour_vocabulary):
    red, green = colour_vocabulary("red"), colour_vocabulary("green")
    assert (red + green).names == ("red", "green")
    np.testing.assert_array_equal((red + green).embeddings, colour_vocabulary("red", "green").embeddings)
    with pytest.raises(VocabularyError, match="repeated"):
        red + red
    wide = Vocabulary(names=("wide",), embeddings=np.eye(4, dtype=np.float32)[:1])
    with pytest.raises(VocabularyError, match="3 and 4 wide"):
        red + wide
    with pytest.raises(VocabularyError, match="different text_hash"):
        dataclasses.replace(red, text_hash="a") + dataclasses.replace(green, text_hash="b")
    with pytest.raises(VocabularyError, match="different templates"):
        dataclasses.replace(red, templates=("a {}",)) + dataclasses.replace(green, templates=("{}",))
    with pytest.raises(TypeError):
        red + ["green"]  # noqa: RUF005


def test_a_vocabulary_of_words_keeps_the_first_schema(colour_vocabulary, tmp_path):
    """Files without pictures stay readable for older versions."""
    import json

    with np.load(colour_vocabulary("red").save(tmp_path / "red.npz")) as stored:
        meta = json.loads(stored["meta"].tobytes())
    assert meta["schema_version"] == 1
    assert "image_hash" not in meta


@pytest.mark.parametrize(
    ("examples", "error", "message"),
    [
        (["mug.jpg"], VocabularyError, "expected name → pictures"),
        ({}, VocabularyError, "no classes"),
        ({"mug": []}, VocabularyError, "expected a list of one or more"),
        ({"mug": "mug.jpg"}, VocabularyError, "expected a list of one or more"),
        ({"mug": ["no/such.jpg"]}, ImageError, "example 0 of 'mug': no/such.jpg does not exist"),
        ({"mug": [(np.zeros((8, 9, 3), np.uint8), np.ones((9, 8)))]}, ImageError, r"expected \(8, 9\)"),
        ({"mug": [(np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9)))]}, ImageError, "zero everywhere"),
        ({"mug": [(np.zeros((8, 9, 3), np.uint8),)]}, ImageError, "a tuple of 1"),
    ],
)
def test_other_examples_are_refused(lite, examples, error, message):
    with pytest.raises(error, match=message):
        Vocabulary.from_images(examples, lite)


def test_a_mask_may_be_a_picture():
    image, mask = half_red()
    _, rows = embed_examples(
        {"a": [(image, mask)], "b": [(Image.fromarray(image), Image.fromarray(mask))]}, Colours(), WORDS
    )
    np.testing.assert_array_equal(rows[0], rows[1])
