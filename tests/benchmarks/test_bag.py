import json

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("rosbags")

from benchmarks import bag as benchmark
from pixelclip_sdk import PixelClipError
from pixelclip_sdk.ros.bag import BagReader
from pixelclip_sdk.ros.convert import segment_bag
from pixelclip_sdk.ros.images import decode_image


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(benchmark, "_SIZE", (64, 48))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("raw", [False, True])
def test_the_bag_shows_the_videos_again_and_again(clip, tmp_path, raw):
    benchmark.make_bag(tmp_path / "bag", clip.parent, 40, raw=raw)
    with BagReader(tmp_path / "bag") as reader:
        images = list(reader.images(reader.choose([])))
    assert len(images) == 40
    pictures = [np.asarray(decode_image(image.message)) for image in images]
    assert pictures[0].shape == (48, 64, 3)
    assert np.array_equal(pictures[2], pictures[32])  # The clip has 30 frames.
    assert pictures[0][0, 0, 0] > 200 > 60 > pictures[1][0, 0, 0]  # Red, then green.
    gaps = np.diff([image.time_ns for image in images])
    assert (abs(gaps - 1e9 / 30) < 3e6).all()
    assert len(set(gaps.tolist())) > 10


@pytest.mark.usefixtures("small")
def test_gaps_and_repeats_are_found(fake, clip, tmp_path):
    for name, count in (("bag", 8), ("shorter", 7)):
        benchmark.make_bag(tmp_path / name, clip.parent, count, raw=True)
        segment_bag(fake, tmp_path / name, tmp_path / f"{name}-out")
    found = benchmark.differences(tmp_path / "bag", tmp_path / "bag-out")
    assert {value for key, value in found.items() if not key.endswith("_images")} == {0}
    assert found["mask_images"] == found["confidence_images"] == 8
    assert benchmark.differences(tmp_path / "bag", tmp_path / "shorter-out")["mask_missing"] == 1
    assert benchmark.differences(tmp_path / "shorter", tmp_path / "bag-out")["mask_images"] == 8


@pytest.mark.usefixtures("small")
def test_a_turn_is_timed_by_the_clock_and_the_processor(fake, clip, tmp_path):
    benchmark.make_bag(tmp_path / "bag", clip.parent, 4, raw=True)
    times = benchmark.in_turns(fake, tmp_path / "bag", tmp_path, 2)
    assert [len(turns) for turns in times.values()] == [2, 2]
    assert all(turn["ms"] > 0 and turn["cpu_ms"] > 0 for turns in times.values() for turn in turns)


def test_a_folder_without_videos(tmp_path):
    with pytest.raises(PixelClipError, match="has no videos"):
        benchmark.make_bag(tmp_path / "bag", tmp_path, 4, raw=False)


def test_how_far_an_unfinished_run_is(tmp_path):
    assert benchmark._read(tmp_path / "out") == 0
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "progress.json").write_text(json.dumps({"done": {"read": 7}}))
    assert benchmark._read(tmp_path / "out") == 7
