import math

import numpy as np
import pytest

from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX, Confusion


def drawn(seed, shape=(40, 30), classes=5):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, shape).astype(np.uint8)
    truth[rng.random(shape) < 0.1] = IGNORE_INDEX
    return truth, rng.integers(0, classes, shape).astype(np.uint8)


def test_iou_is_intersection_over_union_and_skips_absent_classes():
    found = Confusion(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    np.testing.assert_allclose(found.ious, [6 / 9, 3 / 6, np.nan])
    assert found.miou == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert found.accuracy == pytest.approx(9 / 12)


def test_a_class_that_is_only_predicted_lowers_the_others_and_does_not_count_itself():
    found = Confusion.of(np.zeros((1, 4), np.uint8), np.array([[0, 0, 0, 1]]), 2)
    np.testing.assert_allclose(found.ious, [3 / 4, np.nan])
    assert found.miou == 3 / 4


def test_scores_are_those_of_sets_of_pixels():
    truth, predicted = drawn(0)
    found = Confusion.of(truth, predicted, 5)
    scored = truth != IGNORE_INDEX
    for c in range(5):
        both = np.sum(scored & (truth == c) & (predicted == c))
        either = np.sum(scored & ((truth == c) | (predicted == c)))
        assert found.ious[c] == pytest.approx(both / either)
    assert found.matrix.sum() == scored.sum()
    assert found.matrix[1, 3] == np.sum((truth == 1) & (predicted == 3))


def test_one_matrix_over_the_whole_set_not_a_mean_over_photos():
    photos = [drawn(1), drawn(2, (7, 9))]
    total = sum((Confusion.of(*photo, 5) for photo in photos), Confusion.empty(5))
    joined = Confusion.of(*(np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(*photos, strict=True)), 5)
    np.testing.assert_array_equal(total.matrix, joined.matrix)


def test_predictions_on_ignored_pixels_do_not_count():
    truth = np.array([[0, IGNORE_INDEX, BACKGROUND]], np.uint8)
    assert Confusion.of(truth, np.array([[0, 99, 1]]), 2).matrix.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [([[0, 2]], [[0, 0]]), ([[0, 1]], [[0, 2]]), ([[0, 1]], [[0, -1]]), ([[0]], [[0, 0]])],
)
def test_invalid_class_values_are_refused(truth, predicted):
    with pytest.raises(ValueError, match=r"expected classes up to 1|truth is"):
        Confusion.of(np.array(truth, np.uint8), np.array(predicted), 2)


def test_no_scored_pixel_gives_no_score():
    empty = Confusion.of(np.full((2, 2), IGNORE_INDEX, np.uint8), np.zeros((2, 2), int), 2)
    assert math.isnan(empty.miou)
    assert math.isnan(empty.accuracy)
    assert empty.to_json(["a", "b"])["miou"] is None


def test_the_table_names_the_most_frequent_confusion():
    found = Confusion(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    assert found.to_json(["cat", "dog", "cow"])["iou"] == {
        "cat": pytest.approx(6 / 9),
        "dog": 0.5,
        "cow": None,
    }
    lines = found.table(["cat", "dog", "cow"]).splitlines()
    assert lines[1].split() == ["cat", "66.7%", "66.7%", "dog", "25%"]
    assert lines[3].split() == ["cow", "–", "0.0%"]
    assert lines[4].split() == ["mean", "58.3%"]


def test_the_table_has_a_column_of_boundaries():
    found = Confusion(np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]]))
    lines = found.table(["cat", "dog", "cow"], np.array([0.5, 0.25, np.nan])).splitlines()
    assert lines[0].split()[:4] == ["class", "IoU", "boundary", "share"]
    assert lines[1].split()[1:3] == ["66.7%", "50.0%"]
    assert lines[3].split() == ["cow", "–", "–", "0.0%"]
    assert lines[4].split() == ["mean", "58.3%", "37.5%"]
