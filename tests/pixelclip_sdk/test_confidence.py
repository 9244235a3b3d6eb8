import math
import pickle

import numpy as np
import pytest

from pixelclip_sdk import PixelClipError, Segmenter, Vocabulary, VocabularyError
from pixelclip_sdk.cells import linear
from pixelclip_sdk.confidence import Calibration, Rivals, confidence_map, posteriors
from pixelclip_sdk.postprocess import argmax_upsampled, labels_upsampled

NONE = np.empty((0, 1, 1), np.float32)
YELLOW = np.full((64, 64, 3), (255, 255, 0), np.uint8)


def map_of(logits, rivals, size=(4, 6), covered=(1.0, 1.0)):
    """The confidence of an image of this size."""
    labels = labels_upsampled(logits, size, covered=covered)
    return confidence_map(labels, posteriors(logits, rivals, covered), covered)


def test_two_equal_classes_share_the_probability():
    logits = np.zeros((2, 3, 3), np.float32)
    np.testing.assert_allclose(map_of(logits, Rivals(logits[:0], logits[:0], Calibration(0.1))), 0.5)


def test_the_value_is_the_softmax_with_context_and_the_classes_shares_as_priors():
    """One cell, by hand: it is its own best place, and its softmax is the prior."""
    logits = np.array([0.3, 0.1], np.float32).reshape(2, 1, 1)
    likely = np.exp(1.5 * np.array([3.0, 1.0]))
    prior = likely / likely.sum()
    expected = likely[0] * prior[0] / (likely * prior).sum()
    found = map_of(logits, Rivals(NONE, NONE, Calibration(0.1)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_background_words_take_their_weighted_part():
    """A single class has the prior 1, so the confidence is the softmax over the class and the background."""
    logits = np.full((1, 1, 1), 0.3, np.float32)
    background = np.full((2, 1, 1), 0.2, np.float32)
    expected = math.exp(4.5) / (math.exp(4.5) + 0.5 * 2 * math.exp(3))
    found = map_of(logits, Rivals(NONE, background, Calibration(0.1, 0.5)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_best_twentieth_of_the_picture_counts_everywhere():
    """Class 0 is 0.2 better in one cell of 20: half of that is added to all its cells."""
    logits = np.full((2, 4, 5), 0.1, np.float32)
    logits[0, 0, 0] = 0.3
    chances = posteriors(logits, Rivals(NONE, NONE, Calibration(0.1)))
    shares = 1 / (1 + np.exp(-np.array([3.0] + [1.0] * 19)))
    prior = shares.mean()
    expected = math.e * prior / (math.e * prior + (1 - prior))
    np.testing.assert_allclose(chances[0, 3, 4], expected, rtol=1e-5)


def test_a_background_word_of_the_user_counts_like_a_class():
    logits = np.array([0.3, 0.1], np.float32).reshape(2, 1, 1)
    both = map_of(logits, Rivals(NONE, NONE, Calibration(0.1)))
    one = map_of(logits[:1], Rivals(logits[1:], NONE, Calibration(0.1)))
    np.testing.assert_allclose(one, both, rtol=1e-6)


def test_a_class_that_is_elsewhere_in_the_picture_is_trusted_more():
    logits = np.full((2, 1, 8), 0.1, np.float32)
    logits[0, 0, :7] = 0.4  # Class 0 has most of the picture; in the last cell both are equal.
    chances = posteriors(logits, Rivals(logits[:0], logits[:0], Calibration(0.1)))
    assert chances[0, 0, 7] > 0.95
    np.testing.assert_allclose(chances.sum(axis=0), 1, rtol=1e-5)


def test_padding_has_no_effect():
    rng = np.random.default_rng(0)
    logits = rng.uniform(-0.2, 0.4, (3, 4, 6)).astype(np.float32)
    background = rng.uniform(-0.2, 0.4, (5, 4, 6)).astype(np.float32)
    padded, behind = (np.pad(x, ((0, 0), (0, 3), (0, 2)), constant_values=0.9) for x in (logits, background))
    inner = map_of(logits, Rivals(background[:1], background[1:], Calibration(0.05)), (40, 60))
    outer = map_of(padded, Rivals(behind[:1], behind[1:], Calibration(0.05)), (40, 60), (4 / 7, 6 / 8))
    np.testing.assert_allclose(inner, outer, atol=1e-6)


def test_values_stay_between_0_and_1_at_every_temperature():
    rng = np.random.default_rng(1)
    logits = rng.uniform(-1, 1, (20, 5, 7)).astype(np.float32)
    background = rng.uniform(-1, 1, (9, 5, 7)).astype(np.float32)
    for temperature in (1e-3, 0.01, 0.1, 10.0):
        found = map_of(logits, Rivals(background[:0], background, Calibration(temperature)), (33, 50))
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1


def test_the_interpolation_is_that_of_the_labels():
    rng = np.random.default_rng(2)
    plane = rng.uniform(-1, 1, (1, 4, 5)).astype(np.float32)
    for size, covered, cells in (
        ((31, 47), (1.0, 1.0), (4, 5)),
        ((3, 2), (1.0, 1.0), (4, 5)),
        ((40, 40), (0.6, 0.9), (3, 5)),
    ):
        expected = argmax_upsampled(plane, size, covered=covered)[1]
        down, across = map(linear, cells, (4 * covered[0], 5 * covered[1]), size)
        found = down @ plane[0, : cells[0], : cells[1]] @ across.T
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_between_two_sure_points_the_confidence_is_a_half():
    probabilities = np.array([[[1, 0]], [[0, 1]]], np.float32)
    labels = np.array([[0] * 50 + [1] * 50], np.uint8)
    found = confidence_map(labels, probabilities)[0]
    assert found[0] == found[-1] == 1
    np.testing.assert_allclose(found[[49, 50]], 0.5, atol=0.02)


def test_many_classes_have_the_confidence_of_their_own_label():
    rng = np.random.default_rng(3)
    probabilities = rng.uniform(0, 1, (300, 3, 4)).astype(np.float32)
    labels = rng.integers(0, 300, (20, 30)).astype(np.uint16)
    down, across = linear(3, 3, 20), linear(4, 4, 30)
    volume = np.matmul(np.matmul(down, probabilities), across.T)
    expected = np.take_along_axis(volume, labels[None].astype(int), 0)[0]
    np.testing.assert_allclose(confidence_map(labels, probabilities), expected, atol=1e-6)


def test_the_map_has_the_size_of_the_image_and_orders_pixels_sensibly(fake, patches):
    result = fake.predict(patches)
    assert result.confidence.shape == (64, 64)
    assert result.confidence is result.confidence  # Computed once.
    assert result.confidence[10, 10] > 0.99
    assert fake.predict(YELLOW).confidence[10, 10] < 0.6  # Between red and green.
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)).confidence, result.confidence)


def test_presence_is_sure_of_what_is_there(fake, patches):
    assert list(fake.predict(patches).presence()) == ["red", "green", "blue"]
    presence = fake.predict(patches[:32]).presence()
    assert presence["red"] > 0.99
    assert presence["blue"] < 0.01


def test_pixels_below_the_smallest_confidence_become_unknown(fake, patches):
    assert (fake.predict(YELLOW, min_confidence=0.7).labels == 255).all()
    assert (fake.predict(YELLOW, min_confidence=0.3).labels != 255).all()
    assert (fake.predict(patches[:20], min_confidence=0.7).labels == 0).all()
    fake.min_confidence = 0.7
    assert (fake(YELLOW).labels == 255).all()
    assert (fake(YELLOW, min_confidence=0.0).labels != 255).all()
    result = fake.predict(patches)
    np.testing.assert_array_equal(result.labels == 255, result.confidence < 0.7)


def test_a_limit_can_be_of_one_class(fake, patches):
    assert (fake.predict(YELLOW).labels == 0).all()  # Red and green are equal; the first one wins.
    assert (fake.predict(YELLOW, min_confidence={"RED": 0.7}).labels == 255).all()
    assert (fake.predict(YELLOW, min_confidence={"green": 0.7, "blue": 1}).labels == 0).all()
    labels = fake.predict(patches, min_confidence={"red": 0.7}).labels
    assert set(labels[[5, 60, 60], [5, 5, 60]]) == {0, 1, 2}


@pytest.mark.parametrize("value", ["0.2", float("nan"), 40, -0.1, True, {"red": 2}, {"red": None}])
def test_a_smallest_confidence_is_from_0_to_1(fake, patches, value):
    with pytest.raises(PixelClipError, match="expected a number from 0 to 1"):
        fake.predict(patches, min_confidence=value)
    with pytest.raises(PixelClipError, match="expected a number from 0 to 1"):
        fake.min_confidence = value
    assert fake.min_confidence is None


def test_a_limit_of_an_unknown_name_is_refused_with_a_suggestion(fake, patches):
    with pytest.raises(VocabularyError, match=r"'gren', which is no class\. Did you mean 'green'"):
        fake.predict(patches, min_confidence={"gren": 0.5})
    with pytest.raises(VocabularyError, match="no class"):
        fake.min_confidence = {"gren": 0.5}


def test_limits_of_former_classes_do_not_end_a_stream(fake, patches, colour_vocabulary):
    fake.min_confidence = {"red": 0.5}
    fake.set_classes(colour_vocabulary("green", "blue"))
    assert len(list(fake.stream([patches]))) == 1


def test_background_words_win_pixels_that_become_unknown(fake, patches, colour_vocabulary):
    fake.set_classes(colour_vocabulary("red", "blue"))
    result = fake.predict(patches, background=colour_vocabulary("green", "red"))  # "red" is a class.
    assert result.names == ("red", "blue")
    assert result.logits.shape[0] == 2
    assert result.labels[5, 5] == 0
    assert result.labels[60, 5] == result.unknown == 255
    assert result.labels[60, 60] == 1
    assert "green" not in result.areas()
    fake.set_background(colour_vocabulary("green"))
    assert fake.predict(patches).labels[60, 5] == 255
    assert [r.labels[60, 5] for r in fake.stream([patches])] == [255]
    fake.set_background(None)
    assert fake.predict(patches).labels[60, 5] != 255


def test_more_than_255_words_keep_the_labels_of_the_classes_in_a_byte(fake, patches):
    rows = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32) - [0, 9, 0]  # All near magenta.
    many = Vocabulary(
        names=[f"word {i}" for i in range(300)],
        embeddings=(rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32),
    )
    result = fake.predict(patches, background=many)
    assert result.labels.dtype == np.uint8
    assert result.labels[60, 5] == 1
    assert result.unknown == 255


def test_limits_and_background_words_survive_pickling():
    with (
        Segmenter.from_pretrained(
            classes="cat, sofa",
            min_confidence={"cat": 0.4},
            background="wall",
            threads=1,
            input_size=(96, 128),
        ) as segmenter,
        pickle.loads(pickle.dumps(segmenter)) as other,
    ):
        assert other.min_confidence == {"cat": 0.4}
        assert other.background.names == ("wall",)


def test_a_limit_does_not_change_the_confidence(lite, photo):
    """Also where labels follow edges, and for pixels that the limit makes unknown."""
    with lite.with_classes(["cat", "blanket", "wall"]) as segmenter:
        free = segmenter.predict(photo, refine="edges")
        limited = segmenter.predict(photo, refine="edges", min_confidence=0.6)
    assert 0.01 < (limited.labels == limited.unknown).mean() < 1
    np.testing.assert_array_equal(limited.confidence, free.confidence)
