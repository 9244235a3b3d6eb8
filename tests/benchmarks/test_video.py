import json
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from benchmarks.video import RepeatedVideo, main, make_video, measure
from pixelclip_sdk import PixelClipError
from pixelclip_sdk.video.sources import open_source

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.jpg"


@pytest.fixture
def wandering(tmp_path):
    path = tmp_path / "clip.mp4"
    make_video(PHOTO, path, height=48, width=64, frames=8)
    return path


def test_the_video_shows_a_photo_and_moves(wandering):
    frames = [frame.image for frame in open_source(wandering)]
    assert len(frames) == 8
    assert frames[0].shape == (48, 64, 3)
    assert frames[0].std() > 10
    assert np.abs(frames[4].astype(int) - frames[0]).mean() > 5


def test_it_starts_again_until_there_are_enough(wandering):
    frames = list(RepeatedVideo(wandering, 20))
    assert len(frames) == 20
    np.testing.assert_array_equal(frames[1].image, frames[9].image)
    assert [frame.time_s for frame in frames] == pytest.approx([i / 30 for i in range(20)])


def test_every_frame_after_the_warm_up_counts(wandering, fake):
    report = measure(fake.stream(RepeatedVideo(wandering, 40)), 36, warmup=4)
    assert (report["frames"], report["dropped"]) == (36, 0)
    assert report["fps_slowest_third"] <= report["fps"] * 1.2
    assert report["longest_gap_ms"] >= 1e3 / report["fps"] * 0.9
    assert 20 < report["rss_mb"]["start"] <= report["rss_mb"]["peak"] < 4000
    with pytest.raises(PixelClipError, match="4 frames after 4 of warm-up"):
        measure(fake.stream(RepeatedVideo(wandering, 8)), 12, warmup=4)


def test_without_a_warm_up_the_clock_starts_at_once(wandering, fake):
    began = time.perf_counter()
    report = measure(fake.stream(RepeatedVideo(wandering, 20)), 20, warmup=0)
    assert report["frames"] == 20
    assert report["fps"] > 20 / (time.perf_counter() - began) * 0.5


def test_a_live_source_plays_in_real_time(wandering):
    began = time.perf_counter()
    assert len(list(RepeatedVideo(wandering, 10, live=True))) == 10
    assert time.perf_counter() - began >= 9 / 30


def test_the_command_writes_json(tmp_path, monkeypatch, capsys):
    out = tmp_path / "video.json"
    command = ["video.py", "--frames", "12", "--warmup", "2", "--json", str(out)]
    monkeypatch.setattr("sys.argv", command)
    assert main() == 0
    report = json.loads(out.read_text())
    assert report["frames"] == 12
    assert report["stages_ms"]["inference"]["p50"] > 0
    assert report["camera"] is False
    assert "frames a second" in capsys.readouterr().out
