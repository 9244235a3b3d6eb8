import contextlib
import gc
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import BackendError, ImageError, PixelClipError, Segmenter, VocabularyError
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.video import reader, workers
from pixelclip_sdk.video.pipeline import segment_frames
from pixelclip_sdk.video.sources import Frame


def numbered(count=None, pause=0.0):
    """Yields frames; every byte of one is its number modulo 256."""
    i = 0
    while count is None or i < count:
        yield np.full((16, 16, 3), i % 256, np.uint8)
        time.sleep(pause)
        i += 1


def stream_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pixelclip-stream")]


class Live:
    """A camera: unread frames are lost."""

    name, live, fps, count = "camera", True, None, None

    def __init__(self, count, pause):
        self._frames = numbered(count, pause)
        self.made = 0
        self.closed = False

    def __iter__(self):
        for i, image in enumerate(self._frames):
            self.made = i + 1
            yield Frame(image, i / 10, 0.5, 0)

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    assert stream_threads() == []


def test_every_frame_of_a_file_in_order(fake, clip):
    results = list(fake.stream(clip))
    assert [result.frame.index for result in results] == list(range(30))
    assert [int(result.labels[24, 32]) for result in results] == [i % 3 for i in range(30)]
    assert [result.frame.time_s for result in results] == pytest.approx([i / 25 for i in range(30)])
    assert {(r.frame.source, r.frame.dropped, r.frame.damaged) for r in results} == {(0, 0, 0)}
    assert results[0].labels.shape == (48, 64)


def test_speed_names_every_stage_and_the_wait(fake, clip):
    speed = list(fake.stream(clip))[-1].speed
    assert list(speed) == [
        *("decode", "preprocess", "inference", "smooth", "refine", "postprocess", "wait", "total")
    ]
    assert all(ms > 0 for ms in speed.values())
    assert speed["total"] == pytest.approx(sum(speed.values()) - speed["total"])


def test_a_streamed_frame_gets_what_predict_gives(lite, photo):
    (result,) = lite.stream([photo])
    np.testing.assert_array_equal(result.labels, lite.predict(photo).labels)
    assert lite.predict(photo).frame is None


def test_all_loses_nothing_and_reads_no_further_than_its_queues(fake):
    made = 0

    def counted():
        nonlocal made
        for frame in numbered(60):
            made += 1
            yield frame

    lead = []
    for i, result in enumerate(fake.stream(counted())):
        assert result.frame.index == i
        assert result.image[0, 0, 0] == i
        lead.append(made - i)
        time.sleep(0.002)
    assert len(lead) == 60
    assert max(lead) <= 8  # One being read, 2 waiting, 2 in work, 2 finished, and this one.


def test_latest_drops_what_a_slow_consumer_cannot_take_and_counts_it(fake):
    results = []
    for result in fake.stream(numbered(150, pause=0.001), buffer="latest"):
        results.append(result)
        time.sleep(0.02)
    indices = [result.frame.index for result in results]
    assert indices == sorted(set(indices))
    assert len(results) < 75
    assert indices[-1] == 149  # The newest is never lost.
    assert [result.image[0, 0, 0] for result in results] == [index % 256 for index in indices]
    assert [result.frame.dropped_total for result in results] == [
        index - i for i, index in enumerate(indices)
    ]
    assert [result.frame.dropped for result in results] == (np.diff([-1, *indices]) - 1).tolist()


def test_latest_hands_out_fresh_frames(fake):
    camera = Live(100, pause=0.005)
    ages = []
    for result in fake.stream(camera):
        ages.append(camera.made - 1 - result.frame.index)
        time.sleep(0.05)
    assert camera.closed
    # About ten frames arrive while the consumer is busy; the oldest of them would be ten frames old.
    assert np.median(ages) <= 4


def test_live_sources_drop_by_default_and_others_do_not(fake):
    slow = []
    for result in fake.stream(Live(50, pause=0.002)):
        slow.append(result.frame)
        time.sleep(0.02)
    assert slow[-1].dropped_total > 10
    assert slow[-1].time_s == pytest.approx(4.9)
    assert len(list(fake.stream(Live(50, pause=0), buffer="all"))) == 50


@pytest.mark.parametrize("way", ["break", "error", "close"])
def test_leaving_early_ends_the_threads_and_releases_the_file(fake, clip, way):
    def leave():
        stream = fake.stream(clip)
        if way == "close":
            next(stream)
            stream.close()
            return
        for _ in stream:
            if way == "error":
                raise KeyError
            break
        del stream

    started = time.perf_counter()
    if way == "error":
        with pytest.raises(KeyError):
            leave()
    else:
        leave()
    assert stream_threads() == []
    assert time.perf_counter() - started < 1
    if sys.platform == "linux":
        assert str(clip) not in [str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir()]


def test_a_stream_that_nobody_reads_starts_no_thread_and_releases_its_file(fake, clip):
    stream = fake.stream(clip)
    assert stream_threads() == []
    del stream
    if sys.platform == "linux":
        assert str(clip) not in [str(fd.resolve()) for fd in Path("/proc/self/fd").iterdir()]


def test_a_source_that_never_answers_does_not_hold_up_the_end(fake):
    answer = threading.Event()

    def stuck():
        yield from numbered(1)
        answer.wait()

    stream = fake.stream(stuck())
    next(stream)
    started = time.perf_counter()
    stream.close()
    assert time.perf_counter() - started < 3
    answer.set()
    deadline = time.perf_counter() + 3
    while stream_threads() and time.perf_counter() < deadline:
        time.sleep(0.01)


@pytest.mark.parametrize("place", ["reader", "worker"])
def test_a_stream_in_a_reference_cycle_is_collected_in_any_thread(fake, place):
    """The collector may run in the stream's own threads; the worker holds the lock then."""
    dropped = threading.Event()

    def begin():
        if place == "worker" and dropped.is_set():
            gc.collect()
        return lambda image, _blend: fake.predict(image)

    class Collecting(Live):
        def __iter__(self):
            for frame in super().__iter__():
                if place == "reader" and dropped.is_set():
                    gc.collect()
                yield frame

    gc.disable()
    try:
        camera = Collecting(None, 0.001)
        cycle = [segment_frames(begin, [camera])]
        next(cycle[0])
        cycle.append(cycle)
        del cycle
        dropped.set()
        deadline = time.monotonic() + 5
        while (stream_threads() or not camera.closed) and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        gc.enable()
    assert camera.closed
    assert stream_threads() == []


def test_a_stream_may_be_closed_by_its_own_source(fake):
    streams = []

    def frames():
        yield np.zeros((16, 16, 3), np.uint8)
        while not streams:
            time.sleep(0.001)
        streams[0].close()
        yield np.zeros((16, 16, 3), np.uint8)

    stream = fake.stream(frames())
    first = next(stream)
    streams.append(stream)
    assert first.frame.index == 0
    assert list(stream) == []
    deadline = time.monotonic() + 5
    while stream_threads() and time.monotonic() < deadline:
        time.sleep(0.01)


_LEAVING = """
import sys, numpy as np
from pixelclip_sdk import Segmenter
def frames():
    while True:
        yield np.zeros((96, 128, 3), np.uint8)
segmenter = Segmenter.from_pretrained(classes=["cat"])
def leave(segmenter):
    global stream
    stream = segmenter.stream(frames() if sys.argv[1] == "generator" else sys.argv[2])
    for result in stream:
        if result.frame.index >= 5:
            if sys.argv[1] == "error":
                raise KeyError("mine")
            break
if sys.argv[1] == "with":
    with segmenter:
        leave(segmenter)
else:
    leave(segmenter)
"""


@pytest.mark.parametrize("way", ["break", "error", "with", "generator"])
def test_a_program_that_leaves_a_stream_open_ends_normally(clip, way):
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", _LEAVING, way, str(clip)], capture_output=True, text=True, timeout=60
        )
        assert result.returncode == (1 if way == "error" else 0), result.stderr
        assert ("KeyError: 'mine'" in result.stderr) == (way == "error")
        assert "terminate" not in result.stderr
        assert "Exception ignored" not in result.stderr


def test_ctrl_c_ends_a_program_that_waits_for_a_frame(tmp_path):
    code = (
        "import sys, time, numpy as np\n"
        "from pixelclip_sdk import Segmenter\n"
        "def frames():\n"
        "    yield np.zeros((48, 64, 3), np.uint8)\n"
        "    time.sleep(60)\n"
        "for _ in Segmenter.from_pretrained(classes=['cat']).stream(frames()):\n"
        "    print('ready', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
    )
    with process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors


def test_an_error_comes_after_the_frames_before_it_and_names_its_frame(fake):
    def begin():
        return predict

    def predict(image, _blend):
        if image[0, 0, 0] == 7:
            raise BackendError("the engine failed")
        return fake.predict(image)

    stream = segment_frames(begin, [numbered(20)])
    assert [next(stream).frame.index for _ in range(7)] == list(range(7))
    with pytest.raises(BackendError, match=r"frame 7: the engine failed"):
        next(stream)


def test_a_bad_frame_is_named(fake):
    frames = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.float32)]
    with pytest.raises(ImageError, match="frame 1: got an array of float32"):
        list(fake.stream(frames))


def test_a_generators_own_error_comes_through_as_it_is_with_a_note(fake):
    def broken():
        yield from numbered(2)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as error:
        list(fake.stream(broken()))
    assert "frame 2" in error.value.__notes__[0]


def test_a_generator_that_exits_the_program_is_not_taken_for_its_end(fake):
    def leaving():
        yield from numbered(2)
        sys.exit(3)

    with pytest.raises(SystemExit) as error:
        list(fake.stream(leaving()))
    assert error.value.code == 3


def test_a_fast_source_does_not_starve_a_slow_one(fake):
    fast_results = 0
    behind = []

    def slow():
        for _ in range(10):
            time.sleep(0.02)
            behind.append(fast_results)
            yield np.zeros((16, 16, 3), np.uint8)

    waited = []
    for result in fake.stream(numbered(), slow()):
        if result.frame.source == 0:
            fast_results += 1
            assert result.frame.index == fast_results - 1
            continue
        waited.append(fast_results - behind[result.frame.index])
        if result.frame.index == 9:
            break
    assert len(waited) == 10
    assert max(waited) <= 8  # Only the frames already in work come first.


def test_sources_share_the_engine_in_turns_and_may_end_at_different_times(fake):
    results = list(fake.stream(numbered(40), numbered(10), numbered(40)))
    assert [sum(r.frame.source == i for r in results) for i in range(3)] == [40, 10, 40]
    # While all sources have frames waiting, none is two turns behind.
    assert max(r.frame.index for r in results[:30]) <= 20


def test_words_change_while_streaming_and_results_keep_theirs(colour_vocabulary):
    spec = InputSpec(height=16, width=16, multiple=8, fixed=True, keep_aspect=False)
    segmenter = Segmenter(FakeBackend(stride=8), spec, vocabulary=colour_vocabulary("red", "green"))
    red = [np.full((16, 16, 3), (255, 0, 0), np.uint8)] * 60
    names = []
    for result in segmenter.stream(red):
        assert result.names[result.labels[0, 0]] == "red"
        names.append(tuple(result.names))
        if len(names) % 20 == 10:
            segmenter.set_classes(colour_vocabulary(*reversed(result.names)))
    changes = [i for i in range(1, 60) if names[i] != names[i - 1]]
    assert len(changes) == 3
    assert all(10 + 20 * i <= change <= 10 + 20 * i + 8 for i, change in enumerate(changes))


def test_threshold_and_channel_order_reach_the_frames(fake):
    yellow = np.full((16, 16, 3), (0, 255, 255), np.uint8)  # In BGR.
    (result,) = fake.stream([yellow], channel_order="bgr", threshold=0.9)
    assert (result.labels == result.unknown).all()
    assert tuple(result.image[0, 0]) == (255, 255, 0)


def test_results_are_the_callers_even_if_the_source_reuses_its_memory(fake):
    def one_buffer():
        frame = np.empty((16, 16, 3), np.uint8)
        for i in range(40):
            frame[:] = i
            yield frame

    results = list(fake.stream(one_buffer()))
    assert [int(result.image[3, 3, 1]) for result in results] == list(range(40))
    kept = [result.labels.copy() for result in results]
    list(fake.stream(one_buffer()))
    assert all((result.labels == labels).all() for result, labels in zip(results, kept, strict=True))


def test_what_cannot_be_streamed_is_refused_at_once(fake):
    for source in (np.zeros((8, 8, 3), np.uint8), b"jpeg", True, 3.5, None):
        with pytest.raises(ImageError, match="expected a video file"):
            fake.stream(source)
    with pytest.raises(ImageError, match="no source"):
        fake.stream()
    with pytest.raises(ImageError, match="buffer is 'newest'"):
        fake.stream([], buffer="newest")
    with pytest.raises(ImageError, match="channel_order"):
        fake.stream([], channel_order="gbr")
    spec = InputSpec(height=16, width=16, multiple=8, fixed=True, keep_aspect=False)
    with pytest.raises(VocabularyError, match="no classes are set"):
        Segmenter(FakeBackend(), spec).stream([])


def test_times_and_objects_of_the_caller_come_back(fake):
    mark = object()
    picture = np.zeros((16, 16, 3), np.uint8)
    frames = [
        (-3.5, picture),
        (1.7e9, picture, mark),
        (np.float64(2), picture),
        (None, picture, "a"),
        picture,
    ]
    got = [result.frame for result in fake.stream(frames)]
    assert [frame.time_s for frame in got] == [-3.5, 1.7e9, 2, None, None]
    assert [frame.id for frame in got] == [None, mark, None, "a", None]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            (True, np.zeros((8, 8, 3), np.uint8)),
            "frame 1: the time of a frame is bool True; expected seconds",
        ),
        (("now", np.zeros((8, 8, 3), np.uint8)), "is str now; expected seconds"),
        ((float("nan"), np.zeros((8, 8, 3), np.uint8)), "is float nan; expected seconds"),
        ((1.0,), r"a tuple of 1; expected \(time_s, picture\)"),
    ],
)
def test_a_time_is_a_number(fake, item, message):
    with pytest.raises(ImageError, match=message):
        list(fake.stream([np.zeros((8, 8, 3), np.uint8), item]))


def test_an_empty_iterable_gives_nothing(fake):
    assert list(fake.stream([])) == []


def test_a_segmenter_closed_meanwhile_says_so(fake):
    stream = fake.stream(numbered())
    next(stream)
    fake.close()
    with pytest.raises(BackendError, match=r"frame \d+: this engine is closed"):
        list(stream)


def breaking(count):
    yield from numbered(count)
    raise ImageError("the cable is out")


def test_a_source_that_breaks_off_leaves_the_others_if_asked(fake, caplog):
    results = list(fake.stream(breaking(2), numbered(9), on_error="skip"))
    assert [sum(result.frame.source == i for result in results) for i in (0, 1)] == [2, 9]
    assert "the cable is out. The other sources continue." in caplog.text
    with pytest.raises(ImageError, match="the cable is out"):
        list(fake.stream(breaking(2), numbered(9)))


def test_when_all_break_off_the_last_error_is_raised(fake):
    results = []
    with pytest.raises(ImageError, match=r"the cable is out\nWhile reading .*frame [12]"):
        results.extend(fake.stream(breaking(1), breaking(2), on_error="skip"))
    with pytest.raises(ImageError, match="the cable is out"):
        list(fake.stream(breaking(1), on_error="skip"))
    with pytest.raises(ImageError, match="on_error is 'ignore'"):
        fake.stream(breaking(1), on_error="ignore")


class Flaky(Live):
    """A camera that breaks off after `count` frames each time, and cannot be opened at the second attempt."""

    def __init__(self, count, *, live=True, pause=0.0, attempts=None):
        super().__init__(count, pause)
        self.live, self.count, self.pause = live, count, pause
        self.attempts = [] if attempts is None else attempts

    def __iter__(self):
        for frame in super().__iter__():
            yield frame._replace(damaged=1)
        raise ImageError("the cable is out")

    def reopened(self):
        self.attempts.append(time.monotonic())
        if len(self.attempts) == 2:
            raise ImageError("it is not there")
        return Flaky(self.count, pause=self.pause, attempts=self.attempts)


def test_a_camera_comes_back_as_often_as_it_goes(fake, monkeypatch, caplog):
    monkeypatch.setattr(reader, "_RETRY_S", 0.01)
    camera, frames = Flaky(3, pause=0.1), []
    with contextlib.closing(fake.stream(camera, on_error="reopen", buffer="all")) as results:
        for result in results:
            frames.append(result.frame)
            if len(frames) == 9:
                break
    assert [frame.index for frame in frames] == list(range(9))
    assert [frame.damaged for frame in frames] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    times = [frame.time_s for frame in frames]
    assert times[:3] == [0.0, 0.1, 0.2]
    # The camera's clock starts again at 0; the time since the first frame is added.
    assert 0 < times[3] < times[6] < 5
    assert times[4] - times[3] == pytest.approx(0.1)
    assert camera.closed
    assert len(camera.attempts) >= 3
    assert "the cable is out. Reconnecting every second." in caplog.text
    assert "reconnected at attempt 2" in caplog.text


def test_the_clock_of_a_camera_that_comes_back_follows_real_time(fake, monkeypatch):
    """A server sends the seconds before the connection at once; they must not add up."""
    monkeypatch.setattr(reader, "_RETRY_S", 0.05)
    camera, started = Flaky(20), time.monotonic()  # 2 s of its own time in each session.
    with contextlib.closing(fake.stream(camera, on_error="reopen", buffer="all")) as results:
        times = [next(results).frame.time_s for _ in range(100)]
        elapsed = time.monotonic() - started
    assert times == sorted(times)
    assert times[-1] <= elapsed + 2
    assert times[:20] == pytest.approx([i / 10 for i in range(20)])


@pytest.mark.parametrize("failing", ["reopened", "iter", "plain"])
def test_whatever_a_source_raises_reaches_the_caller(fake, monkeypatch, failing):
    monkeypatch.setattr(reader, "_RETRY_S", 0.01)

    class Broken(Flaky):
        def reopened(self):
            if failing == "reopened":
                raise OSError("no camera server")
            return super().reopened() if failing == "iter" else None

        def __iter__(self):
            if failing == "iter":
                raise KeyError("mine")
            return super().__iter__()

    expected = {"reopened": OSError, "iter": KeyError, "plain": AttributeError}[failing]
    with pytest.raises(expected):
        list(fake.stream(Broken(2), on_error="reopen", buffer="all"))


def test_an_error_of_its_own_kind_keeps_its_type_and_gets_a_note(fake):
    class Camera(Live):
        def __iter__(self):
            raise OwnError(1, 2)

    with pytest.raises(OwnError, match="12") as error:
        list(fake.stream(Camera(1, 0)))
    assert error.value.__notes__ == ["While reading camera, frame 0."]


def test_damaged_files_of_a_folder_are_skipped_if_asked(fake, tmp_path, caplog):
    for name in ("1.png", "2.png", "3.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "2.png").write_bytes(b"no picture")
    results = list(fake.stream(tmp_path, on_error="skip"))
    assert [(result.frame.index, result.frame.damaged) for result in results] == [(0, 0), (1, 1)]
    assert f"{tmp_path / '2.png'} is not an image" in caplog.text
    files = [tmp_path / "1.png", tmp_path / "2.png", tmp_path / "missing.png", tmp_path / "3.png"]
    results = list(fake.stream(files, on_error="skip"))
    assert [result.frame.damaged for result in results] == [0, 2]
    with pytest.raises(ImageError, match="got an array of float64"):
        list(fake.stream([np.zeros((8, 8, 3))], on_error="skip"))
    for on_error in ("raise", "reopen"):
        with pytest.raises(ImageError, match=r"frame 1: .*2\.png is not an image"):
            list(fake.stream(tmp_path, on_error=on_error))
    for name in ("1.png", "3.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"3\.png is not an image"):
        list(fake.stream(tmp_path, on_error="skip"))


def test_leaving_does_not_wait_for_a_camera_that_is_gone(fake, monkeypatch):
    monkeypatch.setattr(reader, "_RETRY_S", 60.0)
    with contextlib.closing(fake.stream(Flaky(1), on_error="reopen")) as results:
        next(results)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert not stream_threads()


def test_only_what_is_live_is_opened_again(fake):
    with pytest.raises(ImageError, match="frame 2: the cable is out"):
        list(fake.stream(Flaky(2, live=False), on_error="reopen"))
    with pytest.raises(ImageError, match=r"the cable is out\nWhile reading .*frame 1"):
        list(fake.stream(breaking(1), on_error="reopen"))


def test_leaving_a_stream_ends_the_generator_that_it_reads(fake):
    """The generator may hold a camera, which only one program can open."""
    ended = []

    def frames():
        try:
            while True:
                yield np.zeros((48, 64, 3), np.uint8)
        finally:
            ended.append(True)

    gc.disable()  # A collection must not be needed.
    try:
        for result in fake.stream(frames()):
            if result.frame.index == 2:
                break
        del result
        assert ended
        kept = frames()  # A generator that its owner still uses is not closed.
        next(fake.stream(kept))
        assert next(kept).shape == (48, 64, 3)
    finally:
        gc.enable()


class OwnError(PixelClipError):
    def __init__(self, first, second):
        super().__init__(f"{first}{second}")


def test_what_a_generator_raises_comes_as_it_is(fake):
    raised = OwnError(1, 2)

    def frames():
        yield np.zeros((48, 64, 3), np.uint8)
        raise raised

    with pytest.raises(OwnError) as error:
        list(fake.stream(frames()))
    assert error.value is raised
    assert any("frame 1" in note for note in raised.__notes__)
    with pytest.raises(ImageError, match=r"iterable \(list\), frame 0: got an array"):  # the SDK's own
        list(fake.stream([np.zeros((4, 4, 2), np.uint8)]))


def test_a_live_stream_whose_frames_fail_keeps_no_more_of_them(fake):
    camera = Live(None, 0.001)
    stream = fake.stream(camera, buffer="latest")
    next(stream)
    fake.close()
    kept = stream._pipeline._started
    most, deadline = 0, time.monotonic() + 20
    while camera.made < 200 and time.monotonic() < deadline:
        time.sleep(0.01)
        most = max(most, len(kept))
    with pytest.raises(BackendError, match="closed"):
        list(stream)
    assert camera.made >= 200
    assert most <= 2 * workers.WORKERS + 1
