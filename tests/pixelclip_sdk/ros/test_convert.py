"""A bag into another one: everything is there once, whatever happens meanwhile."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from pixelclip_sdk import ImageError, OutputError, VocabularyError
from pixelclip_sdk.ros import convert, parts
from pixelclip_sdk.ros.convert import segment_bag

pytest.importorskip("rosbags")

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
# Red, green, blue, red, …: labels 0, 1, 2, 0, …
PICTURES = [np.full((48, 64, 3), COLOURS[i % 3], np.uint8) for i in range(12)]


def labels(messages) -> list[int]:
    return [int(m.data[0]) for topic, _, m in messages if topic.endswith("/mask")]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3", "ros1"])
@pytest.mark.parametrize("kind", ["bgr8", "jpeg"])
def test_times_and_headers_are_those_of_the_images(fake, make_bag, read_bag, tmp_path, storage, kind):
    source = make_bag({"/front": (kind, PICTURES)}, storage=storage)
    seen = []
    done = segment_bag(fake, source, tmp_path / "out", report=seen.append)
    assert done == (12, 0, 12, 0, ("/front",))
    assert [progress.images for progress in seen] == list(range(1, 13))
    messages = read_bag(tmp_path / "out")
    kinds = [topic for topic, _, _ in messages]
    assert kinds == ["/segmentation/label_info", *["/segmentation/mask", "/segmentation/confidence"] * 12]
    assert labels(messages) == [0, 1, 2] * 4
    for i, (topic, time_ns, message) in enumerate(messages[1:]):
        stamp = 1_700_000_000_123_456_789 + i // 2 * 33_333_333
        assert (topic, time_ns) == (kinds[i + 1], stamp + 2_000_000)
        assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp
        assert (message.header.frame_id, message.height, message.width) == ("front", 48, 64)
    names = [(entry.class_id, entry.class_name) for entry in messages[0][2].class_map]
    assert names == [(0, "red"), (1, "green"), (2, "blue")]
    assert not (tmp_path / "out.partial").exists()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metadata.yaml", "out_0.mcap"]


def test_several_topics_have_their_own_names(fake, make_bag, read_bag, tmp_path):
    source = make_bag({"/front": ("png", PICTURES), "/rear": ("bgr8", PICTURES[1:4])})
    done = segment_bag(fake, source, tmp_path / "out", topics=["/front", "/rear"], overlay=True)
    assert done.images == 15
    messages = read_bag(tmp_path / "out")
    for topic, expected in (("/front", [0, 1, 2] * 4), ("/rear", [1, 2, 0])):
        own = [m for m in messages if m[0].startswith(f"{topic}/segmentation/")]
        assert own[0][0] == f"{topic}/segmentation/label_info"
        assert labels(own) == expected
        assert len(own) == 1 + 3 * len(expected)  # Mask, confidence, overlay.
        assert {message.header.frame_id for _, _, message in own} == {topic[1:]}


def test_other_readers_of_mcap_agree(fake, make_bag, read_bag, tmp_path):
    """The reader of the makers of mcap, which decodes by the definitions in the file."""
    reader = pytest.importorskip("mcap_ros2.reader")
    segment_bag(fake, make_bag({"/front": ("png", PICTURES[:3])}), tmp_path / "out", part_s=0)
    files = sorted((tmp_path / "out").glob("*.mcap"), key=lambda path: int(path.stem.rpartition("_")[2]))
    assert len(files) == 3
    theirs = [message for file in files for message in reader.read_ros2_messages(file)]
    ours = read_bag(tmp_path / "out")
    assert [(m.channel.topic, m.log_time_ns) for m in theirs] == [(topic, time) for topic, time, _ in ours]
    assert [m.ros_msg.data[0] for m in theirs if m.channel.topic.endswith("mask")] == [0, 1, 2]
    assert [c.class_name for c in theirs[0].ros_msg.class_map] == ["red", "green", "blue"]


def test_rotated_cameras(fake, make_bag, read_bag, patches, tmp_path):
    lying = np.ascontiguousarray(np.rot90(patches))
    segment_bag(fake, make_bag({"/front": ("png", [lying])}), tmp_path / "out", rotate=90)
    mask = read_bag(tmp_path / "out")[1][2]
    assert np.array_equal(np.rot90(mask.data.reshape(64, 64), -1), fake.predict(patches).labels)


class Killed(BaseException):
    """Ends a run as abruptly as an exception can."""


@pytest.mark.parametrize("part_s", [0, 1e9])  # After every image, and never.
def test_a_run_goes_on_where_it_ended(fake, make_bag, tmp_path, part_s):
    source = make_bag({"/front": ("png", PICTURES[:4]), "/rear": ("png", PICTURES[:4])})
    topics = ["/front", "/rear"]
    segment_bag(fake, source, tmp_path / "whole", topics=topics)
    runs = 0
    for stop in (1, 3, 4, 7, None):

        def report(progress, stop=stop):
            if progress.images == stop:
                raise Killed

        try:
            done = segment_bag(fake, source, tmp_path / "out", topics=topics, part_s=part_s, report=report)
        except Killed:
            runs += 1
            assert not (tmp_path / "out").exists()
    assert runs == 4
    assert (done.images, done.resumed) == (8, 7 if part_s == 0 else 0)
    whole, resumed = (read_raw(tmp_path / name) for name in ("whole", "out"))
    assert whole == resumed
    assert len(whole) == 2 + 2 * 8


def read_raw(path: Path) -> list:
    from rosbags.rosbag2 import Reader

    with Reader(path) as reader:
        assert sum(connection.msgcount for connection in reader.connections) == reader.message_count
        raw = [(c.topic, time_ns, bytes(data)) for c, time_ns, data in reader.messages()]
        assert len(raw) == reader.message_count
        times = [time_ns for _, time_ns, _ in raw]
        assert (reader.start_time, reader.end_time) == (times[0], times[-1] + 1)
    return raw


# Segments with the fake model, and takes its time.
CHILD = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from pixelclip_sdk import FakeBackend, InputSpec, Segmenter, Vocabulary
    from pixelclip_sdk.ros.convert import segment_bag

    rows = np.eye(3, dtype=np.float32) * 255 - 127.5
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    words = Vocabulary(names=["red", "green", "blue"], embeddings=rows)
    spec = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)
    segmenter = Segmenter(FakeBackend(stride=8), spec, vocabulary=words)
    source, out = map(Path, sys.argv[1:])
    segment_bag(segmenter, source, out, part_s=0.3, report=lambda _: time.sleep(0.03))
"""


def test_kill_9_three_times(fake, make_bag, tmp_path, spawn):
    source, out = make_bag({"/front": ("png", PICTURES * 6)}), tmp_path / "out"
    segment_bag(fake, source, tmp_path / "whole")
    progress, done = tmp_path / "out.partial" / "progress.json", 0
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(source), str(out)]
    for _ in range(3):
        process = spawn(command)
        deadline = time.monotonic() + 250
        while not progress.exists() or json.loads(progress.read_text())["done"].get("read", 0) <= done:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.03)
        process.kill()  # SIGKILL
        process.wait()
        done = json.loads(progress.read_text())["done"]["read"]
    assert 0 < done < 72
    subprocess.run(command, check=True)
    assert read_raw(out) == read_raw(tmp_path / "whole")


def test_a_kill_before_the_last_step(fake, make_bag, tmp_path, monkeypatch):
    source = make_bag({"/front": ("png", PICTURES)})
    with monkeypatch.context() as patch:
        patch.setattr(parts.PartsWriter, "finish", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            segment_bag(fake, source, tmp_path / "out")
    done = segment_bag(fake, source, tmp_path / "out")
    assert (done.images, done.resumed) == (12, 12)
    assert len(read_raw(tmp_path / "out")) == 25


def test_an_unfinished_run_with_other_settings_is_not_continued(fake, make_bag, tmp_path, colour_vocabulary):
    source = make_bag({"/front": ("png", PICTURES)})

    def stop(_):
        raise Killed

    with pytest.raises(Killed):
        segment_bag(fake, source, tmp_path / "out", report=stop)
    with pytest.raises(OutputError, match=r"out.partial is of a run with other rotate\. Repeat the command"):
        segment_bag(fake, source, tmp_path / "out", rotate=90)
    fake.set_classes(colour_vocabulary("red", "blue"))
    with pytest.raises(OutputError, match="other classes"):
        segment_bag(fake, source, tmp_path / "out")
    (tmp_path / "out.partial" / "progress.json").write_text("{")
    with pytest.raises(OutputError, match=r"out.partial is not of an unfinished run"):
        segment_bag(fake, source, tmp_path / "out")


def test_results_that_exist_are_not_touched(fake, make_bag, tmp_path):
    source = make_bag({"/front": ("png", PICTURES)})
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="out exists; name another folder"):
        segment_bag(fake, source, tmp_path / "out")
    with pytest.raises(OutputError, match="is the input"):
        segment_bag(fake, source, source)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        segment_bag(fake, source, tmp_path / "file" / "out")


def test_damaged_images_are_left_out_and_counted(fake, make_bag, read_bag, tmp_path, monkeypatch, caplog):
    source = make_bag({"/front": ("png", PICTURES)})
    original = convert.decode_image

    def decode(message, rotate):
        if message.header.stamp.nanosec % 1000 in (455, 452):  # The third and the last image.
            message.data = message.data[:40]
        return original(message, rotate)

    monkeypatch.setattr(convert, "decode_image", decode)
    done = segment_bag(fake, source, tmp_path / "out")
    assert (done.images, done.damaged, done.total) == (10, 2, 12)
    assert labels(read_bag(tmp_path / "out")) == [0, 1, 0, 1, 2, 0, 1, 2, 0, 1]
    assert "/front, image 2: " in caplog.text


def test_a_topic_without_any_picture(fake, make_bag, tmp_path, monkeypatch):
    def refuse(_message, _rotate):
        raise ImageError("no picture")

    monkeypatch.setattr(convert, "decode_image", refuse)
    with pytest.raises(ImageError, match="/front, image 0: no picture"):
        segment_bag(fake, make_bag({"/front": ("png", PICTURES)}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_classes_than_a_mask_has_labels_for(fake, make_bag, tmp_path):
    from pixelclip_sdk import Vocabulary

    rows = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fake.set_classes(Vocabulary(names=[f"thing {i}" for i in range(256)], embeddings=rows))
    with pytest.raises(VocabularyError, match="256 classes"):
        segment_bag(fake, make_bag({"/front": ("png", PICTURES)}), tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()
