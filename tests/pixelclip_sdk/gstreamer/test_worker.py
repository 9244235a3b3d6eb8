"""The worker of the element, without GStreamer."""

import threading

import numpy as np
import pytest

from pixelclip_sdk.gstreamer.worker import MOST_FRAMES, FrameWorker

GREY = np.full((48, 64, 3), 128, np.uint8)


@pytest.fixture
def delivered() -> list:
    return []


@pytest.fixture
def worker(fake, delivered):
    made = FrameWorker(fake, 0.3, lambda _, tag: delivered.append(tag), delivered.append)
    yield made
    made.close()


def test_results_come_in_the_order_of_the_frames(worker, delivered):
    assert all(worker.submit(GREY, i / 10, i) for i in range(20))
    worker.drain()
    assert delivered == list(range(20))


def test_a_frame_without_a_time_is_taken(worker, delivered):
    assert worker.submit(GREY, None, "tag")
    worker.drain()
    assert delivered == ["tag"]


def test_frames_wait_when_enough_are_inside(fake):
    go, submitted = threading.Event(), []
    worker = FrameWorker(fake, 0, lambda *_: go.wait(20), print)
    feeder = threading.Thread(target=lambda: [submitted.append(worker.submit(GREY, i, i)) for i in range(9)])
    feeder.start()
    feeder.join(0.5)
    assert len(submitted) == MOST_FRAMES
    go.set()
    feeder.join(20)
    assert submitted == [True] * 9
    worker.close()


def test_flushing_drops_what_is_inside_and_resuming_goes_on(fake):
    go, delivered = threading.Event(), []

    def deliver(_, tag) -> None:
        delivered.append(tag)
        go.wait(20)

    worker = FrameWorker(fake, 0, deliver, print)
    for i in range(MOST_FRAMES):
        assert worker.submit(GREY, i, i)
    while not delivered:
        go.wait(0.01)
    worker.flush()
    assert not worker.submit(GREY, 0, "refused")
    go.set()
    worker.resume()
    assert worker.submit(GREY, 0, "after")
    worker.drain()
    worker.close()
    assert delivered == [0, "after"]


def test_an_error_ends_the_work_and_nobody_waits_for_ever(worker, fake, delivered):
    fake.close()
    while worker.submit(GREY, 0, "frame"):
        pass
    worker.drain()
    (error,) = delivered
    assert "closed" in str(error)


def test_closing_twice_is_harmless(worker):
    worker.close()
    worker.close()
    assert not worker.submit(GREY, 0, "late")
