import math

import numpy as np
import pytest

from pixelclip_sdk import BackendError
from pixelclip_sdk.postprocess import argmax_upsampled, labels_upsampled, unknown_label


def reference(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Textbook bilinear interpolation with half-pixel centres, in float64."""
    for axis, target in ((1, size[0]), (2, size[1])):
        source = logits.shape[axis]
        x = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        low = np.floor(x).astype(int)
        high = np.minimum(low + 1, source - 1)
        shape = [1, 1, 1]
        shape[axis] = target
        weight = (x - low).reshape(shape)
        logits = logits.take(low, axis) * (1 - weight) + logits.take(high, axis) * weight
    return logits


CASES = [
    ((20, 12, 16), (48, 64)),
    ((3, 1, 1), (7, 5)),
    ((5, 7, 3), (3, 2)),
    ((4, 1, 9), (10, 4)),
    ((300, 8, 8), (33, 47)),
    ((1, 4, 4), (9, 9)),
    ((6, 5, 5), (5, 5)),
    ((20, 64, 64), (270, 480)),  # A whole number of columns a cell, not of rows.
    ((3, 2, 2), (200, 300)),  # Cells cut into parts.
    ((2, 3, 40), (400, 11)),
    ((7, 30, 30), (4, 4)),  # Smaller than the grid.
]


@pytest.mark.parametrize(("shape", "size"), CASES)
def test_equals_interpolate_then_argmax(shape, size):
    logits = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    labels, scores = argmax_upsampled(logits, size)
    full = reference(logits.astype(np.float64), size)
    np.testing.assert_allclose(scores, full.max(axis=0), atol=1e-5)
    # The label has to be a winner; where two classes tie within rounding either is.
    chosen = np.take_along_axis(full, labels[None].astype(int), 0)[0]
    np.testing.assert_allclose(chosen, full.max(axis=0), atol=1e-5)
    assert (labels == full.argmax(axis=0)).mean() > 0.999


@pytest.mark.parametrize("covered", [(1.0, 1.0), (0.51, 0.9)])
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_labels_equal_those_of_argmax_upsampled(shape, size, covered):
    rng = np.random.default_rng(5)
    for noise in (1, 0.1):  # Few cells with a single candidate, and many.
        logits = (rng.normal(size=(shape[0], 1, 1)) + noise * rng.normal(size=shape)).astype(np.float32)
        labels, scores = argmax_upsampled(logits, size, covered=covered)
        alone = labels_upsampled(logits, size, covered=covered)
        assert alone.dtype == labels.dtype
        np.testing.assert_array_equal(alone, labels)
        limit = float(np.median(scores))
        hidden = np.where(scores < limit, unknown_label(shape[0]), labels)
        np.testing.assert_array_equal(labels_upsampled(logits, size, limit, covered), hidden)


def test_agrees_with_torch():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(2).normal(size=(40, 12, 16)).astype(np.float32)
    full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (96, 131), mode="bilinear")[0]
    labels, scores = argmax_upsampled(logits, (96, 131))
    assert (labels == full.argmax(0).numpy()).mean() > 0.9999
    np.testing.assert_allclose(scores, full.max(0).values.numpy(), atol=1e-5)


def test_ties_go_to_the_first_class():
    labels, _ = argmax_upsampled(np.full((5, 3, 3), 0.25, np.float32), (6, 6))
    assert not labels.any()


def test_labels_are_uint8_up_to_255_classes_then_uint16():
    def labels(count, threshold):
        return argmax_upsampled(np.zeros((count, 2, 2), np.float32), (4, 4), threshold)[0]

    assert labels(255, None).dtype == np.uint8
    assert (labels(255, 0.5) == 255).all()
    assert labels(256, None).dtype == np.uint16
    assert (labels(256, 0.5) == 65535).all()


def test_the_threshold_hides_only_pixels_below_it():
    logits = np.random.default_rng(3).normal(size=(6, 4, 4)).astype(np.float32)
    plain, scores = argmax_upsampled(logits, (16, 16))
    hidden, same = argmax_upsampled(logits, (16, 16), threshold=0.5)
    np.testing.assert_array_equal(scores, same)
    np.testing.assert_array_equal(hidden == 255, scores < 0.5)
    np.testing.assert_array_equal(hidden[hidden != 255], plain[hidden != 255])
    assert 0 < (hidden == 255).mean() < 1


def test_memory_follows_the_picture_not_the_classes():
    import tracemalloc

    rng = np.random.default_rng(4)
    # Smooth logits, as a model gives them: few classes compete in one place.
    logits = (rng.normal(size=(1000, 1, 1)) + 0.1 * rng.normal(size=(1000, 16, 16))).astype(np.float32)
    tracemalloc.start()
    argmax_upsampled(logits, (512, 512))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # K × H × W of float32 would be 1 GB.


@pytest.mark.parametrize("function", [labels_upsampled, argmax_upsampled])
def test_many_classes_on_a_fine_grid_need_no_copy_of_the_logits(function):
    import tracemalloc

    rng = np.random.default_rng(4)
    logits = (rng.normal(size=(4096, 1, 1)) + 0.1 * rng.normal(size=(4096, 64, 64))).astype(np.float32)
    assert logits.nbytes > 67e6
    tracemalloc.start()
    function(logits, (1080, 1920))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40e6  # Labels (4 MB) and scores (8 MB) included.


@pytest.mark.parametrize("covered", [(1, 0.75), (0.3, 1), (0.51, 0.99)])
def test_padding_does_not_affect_labels(covered):
    logits = np.random.default_rng(1).normal(size=(6, 16, 16)).astype(np.float32)
    rows, columns = (math.ceil(16 * share) for share in covered)
    labels, scores = argmax_upsampled(logits, (90, 70), covered=covered)
    logits[:, rows:] = logits[:, :, columns:] = 100
    again = argmax_upsampled(logits, (90, 70), covered=covered)
    assert (again[0] == labels).all()
    assert (again[1] == scores).all()


def test_a_covered_part_is_interpolated_like_a_smaller_grid():
    logits = np.random.default_rng(1).normal(size=(6, 16, 16)).astype(np.float32)
    part = argmax_upsampled(logits, (60, 80), covered=(0.5, 1))
    alone = argmax_upsampled(logits[:, :8], (60, 80))
    assert (part[0] == alone[0]).all()
    np.testing.assert_allclose(part[1], alone[1], atol=1e-6)


@pytest.mark.parametrize("threshold", [None, 0.1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(1, 2, 3), (2, 7, 7), (slice(None), 0, 0), ...])
def test_logits_that_are_not_finite_are_an_error(place, value, threshold):
    logits = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    logits[place] = value
    for function in (labels_upsampled, argmax_upsampled):
        with pytest.raises(BackendError, match="not finite"):
            function(logits, (64, 64), threshold)


def test_values_of_the_padding_need_not_be_finite():
    logits = np.random.default_rng(0).normal(size=(3, 8, 8)).astype(np.float32)
    expected = labels_upsampled(logits, (32, 64), covered=(0.5, 1))
    logits[:, 4:] = np.nan
    np.testing.assert_array_equal(labels_upsampled(logits, (32, 64), covered=(0.5, 1)), expected)
