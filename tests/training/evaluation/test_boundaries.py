import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, distance_transform_edt

from training.evaluation.boundaries import TOLERANCE_PX, Boundaries
from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX


def halves(edge, shape=(40, 60)):
    """Class 0 left of a column, class 1 from it on."""
    labels = np.zeros(shape, np.uint8)
    labels[:, edge:] = 1
    return labels


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (5, 1.0), (-5, 1.0), (6, 0.0), (-6, 0.0)])
def test_a_boundary_within_the_tolerance_is_found(shift, expected):
    found = Boundaries.of(halves(30), halves(30 + shift), 2)
    assert found.means.tolist() == [[expected] * 2] * 3
    assert found.photos.tolist() == [1, 1]


def test_the_tolerance_is_a_circle():
    truth, predicted = np.zeros((30, 30), np.uint8), np.zeros((30, 30), np.uint8)
    truth[10, 10] = 1
    for (row, column), expected in {(13, 14): 1.0, (14, 14): 0.0, (10, 15): 1.0}.items():
        predicted[:] = 0
        predicted[row, column] = 1
        assert Boundaries.of(truth, predicted, 2).means[2, 1] == expected


def test_precision_and_recall_are_shares_of_boundary_pixels():
    """A stripe whose lower half is missing, and a copy of it far away."""
    truth, predicted = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    truth[:, 20] = 1
    predicted[:30, 20], predicted[:30, 60] = 1, 1
    precision, recall, f_score = Boundaries.of(truth, predicted, 2).means[:, 1]
    assert precision == 0.5
    assert recall == 35 / 60  # five pixels beyond its end are still near
    assert f_score == pytest.approx(2 * precision * recall / (precision + recall))


def test_scores_are_those_of_distance_maps():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 4, (2, 6, 8)).astype(np.uint8)
    truth, predicted = coarse.repeat(15, axis=1).repeat(15, axis=2)
    predicted = np.roll(predicted, 3, axis=1)
    found = Boundaries.of(truth, predicted, 4)
    for value in range(4):
        contours = [
            mask & ~binary_erosion(mask, border_value=1) for mask in (truth == value, predicted == value)
        ]
        far = [distance_transform_edt(~contour) for contour in contours]
        assert found.means[0, value] == pytest.approx((far[0][contours[1]] <= TOLERANCE_PX).mean())
        assert found.means[1, value] == pytest.approx((far[1][contours[0]] <= TOLERANCE_PX).mean())
    assert found.f_score == pytest.approx(found.means[2].mean())


def test_a_class_that_is_not_predicted_scores_nothing_and_an_absent_one_does_not_count():
    found = Boundaries.of(halves(30), np.zeros((40, 60), np.uint8), 3)
    assert found.means[:, 1].tolist() == [0, 0, 0]
    assert found.photos.tolist() == [1, 1, 0]
    found = Boundaries.of(np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8), 2)
    assert found.photos.tolist() == [0, 0]  # a class that fills the photo has no boundary
    assert math.isnan(found.f_score)
    assert found.to_json(["a", "b"])["mean_f_score"] is None


def test_a_border_of_ignored_pixels_is_closed_in_its_middle():
    """As VOC has between object and background."""
    truth = halves(30)
    truth[truth == 0] = BACKGROUND
    truth[:, 27:33] = IGNORE_INDEX  # grows to 30 from both sides
    assert Boundaries.of(truth, halves(35), 2).means[:, 1].tolist() == [1, 1, 1]
    assert Boundaries.of(truth, halves(36), 2).means[:, 1].tolist() == [0, 0, 0]


def test_predictions_deep_in_ignored_pixels_do_not_count():
    truth = halves(20)
    truth[:, 30:] = IGNORE_INDEX
    predicted = halves(20)
    predicted[:, 50:] = 0
    assert Boundaries.of(truth, predicted, 2).means[:, 1].tolist() == [1, 1, 1]
    predicted[:, 28:] = 0
    precision, recall, _ = Boundaries.of(truth, predicted, 2).means[:, 1]
    assert (precision, recall) == (0.5, 1)


def test_the_background_has_no_score_and_bounds_the_classes():
    truth = halves(30)
    truth[truth == 1] = BACKGROUND
    found = Boundaries.of(truth, halves(30), 2)
    assert found.photos.tolist() == [1, 0]
    assert found.f_score == 1


def test_means_over_photos():
    good, bad = Boundaries.of(halves(30), halves(30), 2), Boundaries.of(halves(30), halves(40), 2)
    found = good + bad
    assert found.means.tolist() == [[0.5, 0.5]] * 3
    report = found.to_json(["left", "right"])
    assert report["tolerance_px"] == 5
    assert report["mean_f_score"] == 0.5
    assert report["photos"] == {"left": 2, "right": 2}
    assert report["precision"] == {"left": 0.5, "right": 0.5}


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"predictions are \(4, 5\), the truth is \(4, 4\)"):
        Boundaries.of(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2)
