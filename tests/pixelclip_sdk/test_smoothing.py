import math
import random
import time

import numpy as np
import pytest

from pixelclip_sdk import BackendError, PixelClipError
from pixelclip_sdk.inference import segment_images
from pixelclip_sdk.settings import Settings
from pixelclip_sdk.smoothing import Smoother
from pixelclip_sdk.video.pipeline import segment_frames
from pixelclip_sdk.words.background import Competitors

STILL = np.full((64, 64, 3), 90, np.uint8)
WORDS = object()


def logits(value):
    """Logits of two classes on a grid of 8×8: `value` and 0."""
    return np.stack([np.full((8, 8), value, np.float32), np.zeros((8, 8), np.float32)])


def blended(smoother, frames):
    """The logit of the first class in the top left cell, for frames (time, value, picture)."""
    return [
        float(smoother.blend(logits(value), picture, WORDS, index=i, time_s=time_s)[0, 0, 0])
        for i, (time_s, value, picture) in enumerate(frames)
    ]


def test_a_still_picture_forgets_exponentially_by_time():
    got = blended(Smoother(0.5), [(0.0, 1.0, STILL), (0.1, 0.0, STILL), (0.3, 0.0, STILL)])
    assert got == pytest.approx([1, math.exp(-0.1 / 0.5), math.exp(-0.3 / 0.5)], rel=1e-5)


def test_dropped_frames_leave_the_weight_of_the_past():
    every = blended(Smoother(0.3), [(i / 30, float(i == 0), STILL) for i in range(7)])
    some = blended(Smoother(0.3), [(0.0, 1.0, STILL), (6 / 30, 0.0, STILL)])
    assert every[-1] == pytest.approx(some[-1], rel=1e-5)


def test_without_times_the_number_of_the_frame_counts():
    smoother = Smoother(0.5, fps=10)
    smoother.blend(logits(1.0), STILL, WORDS, index=3, time_s=None)
    got = smoother.blend(logits(0.0), STILL, WORDS, index=5, time_s=None)
    assert got[0, 0, 0] == pytest.approx(math.exp(-0.2 / 0.5), rel=1e-5)


def test_auto_smooths_only_frames_with_times():
    smoother = Smoother("auto")
    for i in range(2):
        given = logits(float(i))
        assert smoother.blend(given, STILL, WORDS, index=i, time_s=None) is given
    assert blended(Smoother("auto"), [(0.0, 1.0, STILL), (0.3, 0.0, STILL)])[1] == pytest.approx(1 / math.e)


def test_where_the_picture_and_the_logits_change_the_new_ones_count():
    moved = STILL.copy()
    moved[:16, :16] = 200
    smoother = Smoother(1.0)
    before, after = logits(0.0), logits(0.0)
    before[0, :, 4:] = 1
    after[0, :, 4:] = 1
    after[0, 0, 0] = after[0, 7, 0] = 1
    smoother.blend(before, STILL, WORDS, index=0, time_s=0.0)
    got = smoother.blend(after, moved, WORDS, index=1, time_s=0.01)
    assert got[0, 0, 0] == 1  # The picture changed there.
    assert got[0, 7, 0] == pytest.approx(0.01, rel=0.01)  # It did not change there.


def test_noise_in_a_moving_picture_is_averaged():
    moved = STILL.copy()
    moved[:16, :16] = 200
    smoother = Smoother(1.0)
    before = logits(0.0)
    before[0, :, 4:] = 1
    smoother.blend(before, STILL, WORDS, index=0, time_s=0.0)
    after = before.copy()
    after[0, 0, 0] = 0.05
    got = smoother.blend(after, moved, WORDS, index=1, time_s=0.01)
    assert got[0, 0, 0] < 0.001


@pytest.mark.parametrize("change", ["cut", "words", "grid", "time", "nan"])
def test_it_starts_anew(change):
    smoother = Smoother(1.0)
    smoother.blend(logits(0.0), STILL, WORDS, index=0, time_s=5.0)
    given = logits(0.01)
    picture = 255 - STILL if change == "cut" else STILL
    if change == "grid":
        given = given[:, :4]
    got = smoother.blend(
        given,
        picture,
        object() if change == "words" else WORDS,
        index=1,
        time_s={"time": 4.9, "nan": math.nan}.get(change, 5.1),
    )
    np.testing.assert_array_equal(got, given)


def test_arguments_are_not_modified():
    smoother, given = Smoother(1.0), [logits(0.3), logits(0.1)]
    for i, grid in enumerate(given):
        smoother.blend(grid, STILL, WORDS, index=i, time_s=i / 10)
    assert [grid[0, 0, 0] for grid in given] == pytest.approx([0.3, 0.1])


@pytest.mark.parametrize("smooth", [1.5, -0.1, "on", True, float("nan")])
def test_smooth_is_a_number_of_seconds(fake, smooth):
    with pytest.raises(PixelClipError, match="expected seconds from 0 to 1"):
        fake.stream([STILL], smooth=smooth)


def noisy(count):
    rng = np.random.default_rng(0)
    return [(i / 30, rng.integers(100, 140, (64, 64, 3)).astype(np.uint8)) for i in range(count)]


def test_workers_smooth_the_frames_in_order(fake):
    """Two workers of different speed give what one after the other gives."""
    frames = noisy(40)
    words, settings = Competitors(None).of(fake.vocabulary), Settings()

    def begin():
        def predict(image, turn):
            time.sleep(random.uniform(0, 0.004))
            return segment_images(
                [image], fake._backend, fake._input, words, settings, channel_order="rgb", turn=turn
            )[0]

        return predict

    got = list(segment_frames(begin, [frames, frames], smooth=0.3))
    smoother = Smoother(0.3)
    for i, (time_s, picture) in enumerate(frames):
        raw = fake.predict(picture).logits
        expected = smoother.blend(raw, picture, WORDS, index=i, time_s=time_s)
        for source in range(2):
            result = next(r for r in got if (r.frame.source, r.frame.index) == (source, i))
            np.testing.assert_allclose(result.logits, expected, atol=1e-6)
    assert np.abs(expected - raw).max() > 0.05


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_frame_that_fails_holds_up_no_other(fake, place):
    def begin():
        def predict(image, turn):
            if image[0, 0, 0] == 7 and place == "before":
                raise BackendError("the engine failed")
            result = fake.predict(image)
            with turn.taken():
                turn.smoother.blend(result.logits, image, WORDS, index=turn.index, time_s=turn.time_s)
            if image[0, 0, 0] == 7:
                raise BackendError("the engine failed")
            return result

        return predict

    frames = [(i / 30, np.full((64, 64, 3), i, np.uint8)) for i in range(20)]
    stream = segment_frames(begin, [frames], smooth=0.3)
    assert [next(stream).frame.index for _ in range(7)] == list(range(7))
    with pytest.raises(BackendError, match="frame 7"):
        next(stream)


def test_dropped_results_hold_up_no_other(fake):
    indices = []
    for result in fake.stream(iter(noisy(60)), buffer="latest", smooth=0.3):
        indices.append(result.frame.index)
        time.sleep(0.01)
    assert indices == sorted(indices)
    assert indices[-1] == 59


def test_labels_of_a_still_scene_stay_and_a_moving_object_is_not_late(fake):
    """A red square moves over green by a cell a frame; two cells of the scene flicker between colours."""
    frames = []
    for i in range(8):
        picture = np.full((64, 64, 3), (0, 255, 0), np.uint8)
        picture[:16, 8 * i : 8 * i + 8] = (255, 0, 0)
        picture[56:, 56:] = (100, 130, 100) if i % 2 else (131, 130, 100)
        frames.append((i / 30, picture))
    plain = [result.labels for result in fake.stream(frames, smooth=None)]
    smooth = [result.labels for result in fake.stream(frames)]
    for before, after in zip(plain, smooth, strict=True):
        np.testing.assert_array_equal(before[:24], after[:24])
    assert {int(labels[-1, -1]) for labels in plain} == {0, 1}
    assert len({int(labels[-1, -1]) for labels in smooth[2:]}) == 1


def test_frames_without_number_and_time_follow_one_another():
    smoother, numbered = Smoother(0.3), Smoother(0.3)
    for i, value in enumerate((0.0, 1.0, 0.5)):
        got = smoother.blend(logits(value), STILL, WORDS)
        expected = numbered.blend(logits(value), STILL, WORDS, index=i, time_s=i / 30)
        np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("smooth", [0, None])
def test_no_memory_changes_nothing(smooth):
    smoother = Smoother(smooth)
    for value in (0.0, 1.0):
        given = logits(value)
        assert smoother.blend(given, STILL, WORDS, time_s=value) is given


@pytest.mark.parametrize("smooth", [-1, 2, "long", True])
def test_a_memory_out_of_range_is_refused(smooth):
    with pytest.raises(PixelClipError, match="smooth is"):
        Smoother(smooth)
