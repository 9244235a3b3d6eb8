"""The recipe for ids that stay with a thing (docs/results.md), on a scene whose truth is known."""

import warnings

import numpy as np
import pytest


@pytest.fixture
def tracker():
    with warnings.catch_warnings(action="ignore"):
        trackers = pytest.importorskip("trackers")
    return trackers.ByteTrackTracker(track_activation_threshold=0.3, high_conf_det_threshold=0.3)


def frame(*squares: tuple[int, int]) -> np.ndarray:
    """Red squares of 16 pixels on green, at the given (x, y)."""
    picture = np.full((64, 64, 3), (0, 255, 0), np.uint8)
    for x, y in squares:
        picture[y : y + 16, x : x + 16] = (255, 0, 0)
    return picture


def test_two_moving_things_keep_their_ids(fake, tracker):
    frames = [frame((2 * i, 4), (44 - 2 * i, 40)) for i in range(16)]
    upper, lower = set(), set()
    for result in fake.stream(frames):
        things = tracker.update(result.to_supervision(classes="red"))
        assert len(things) == 2
        for number, box in zip(things.tracker_id, things.xyxy, strict=True):
            if number >= 0:
                (upper if box[1] < 32 else lower).add(int(number))
    assert len(upper) == len(lower) == 1
    assert upper != lower
