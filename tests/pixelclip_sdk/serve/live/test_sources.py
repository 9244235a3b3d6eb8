"""Sources of the server, without a server."""

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from pixelclip_sdk.serve.live.sources import Shot, Source


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pixelclip-source"]


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Runs a coroutine; then no reader is left."""
    asyncio.run(asyncio.wait_for(test(), 30))
    for thread in readers():
        thread.join(5)
    assert not readers()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def watching(source: Source, notify: Callable[[], None] = lambda: None):
    leave = source.watch(notify)
    try:
        yield
    finally:
        leave()


def test_a_video_plays_at_its_speed_and_starts_anew(clip):
    async def test():
        source, seen = Source("clip", str(clip)), []
        loop = asyncio.get_running_loop()
        with watching(source, lambda: seen.append((source.newest.number, loop.time()))):
            await until(lambda: source.newest is not None and source.newest.number > 40)
        numbers, times = zip(*seen, strict=True)
        assert list(numbers) == list(range(1, len(numbers) + 1))
        # 30 frames at 25 a second, from the second one on.
        assert times[29] - times[1] == pytest.approx(28 / 25, abs=0.3)
        assert source.newest is None

    run(test)


def test_viewers_share_one_thread(clip):
    async def test():
        source = Source("clip", str(clip))
        with watching(source):
            with watching(source):
                await until(lambda: source.newest is not None)
                assert len(readers()) == 1
            assert source.newest is not None
            number = source.newest.number
            await until(lambda: source.newest.number > number)

    run(test)


def test_a_source_that_fails_is_tried_until_it_is_there(clip, tmp_path, caplog):
    file = tmp_path / "video.mp4"

    async def test():
        source, calls = Source("door", str(file)), []
        with watching(source, lambda: calls.append(source.failing)):
            await until(lambda: source.failing)
            shutil.copy(clip, file)
            await until(lambda: source.newest is not None)
            assert not source.failing
        assert calls[:2] == [True, False]

    run(test)
    assert [record.message for record in caplog.records if "door" in record.message][
        1
    ] == "source door is back"


def test_a_file_that_is_no_video_fails_and_does_not_spin(tmp_path, caplog):
    file = tmp_path / "video.mp4"
    file.write_bytes(b"nothing" * 1000)

    async def test():
        source = Source("door", str(file))
        with watching(source):
            await until(lambda: source.failing)
            await asyncio.sleep(1.5)

    run(test)
    assert len([record for record in caplog.records if "door" in record.message]) == 1


def test_pictures_of_a_folder_come_one_a_second(tmp_path):
    for i in range(2):
        Image.new("RGB", (8, 8), (100 * i, 0, 0)).save(tmp_path / f"{i}.png")

    async def test():
        source, loop = Source("folder", str(tmp_path)), asyncio.get_running_loop()
        with watching(source):
            await until(lambda: source.newest is not None)
            start = loop.time()
            await until(lambda: source.newest.number == 2)
            assert loop.time() - start == pytest.approx(1, abs=0.3)
            assert source.newest.image()[0, 0].tolist() == [100, 0, 0]

    run(test)


def test_a_viewer_who_comes_back_starts_anew(clip):
    async def test():
        source = Source("clip", str(clip))
        for _ in range(3):
            seen: list[int] = []
            with watching(source, lambda seen=seen: seen.append(source.newest.number)):
                await until(lambda seen=seen: len(seen) >= 3)
            assert seen[:3] == [1, 2, 3]
            assert source.newest is None

    run(test)


def test_a_large_frame_is_made_smaller_once():
    image = np.zeros((1080, 1920, 3), np.uint8)
    image[:, 960:] = 200
    shot = Shot(1, image)
    small = shot.image()
    assert small.shape == (720, 1280, 3)
    assert small is shot.image()
    assert small[360, 100].tolist() == [0, 0, 0]
    assert small[360, 1200].tolist() == [200, 200, 200]
    assert shot.jpeg() is shot.jpeg()
    assert shot.jpeg()[:2] == b"\xff\xd8"
    tiny = np.zeros((4, 6, 3), np.uint8)
    assert Shot(1, tiny).image().shape == (4, 6, 3)
