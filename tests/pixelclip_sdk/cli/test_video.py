import itertools
import json
import signal
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.cli.main import main
from pixelclip_sdk.video.sources import open_source
from pixelclip_sdk.video.writer import write_video

pytest.importorskip("av")


@pytest.fixture
def cat_clip(tmp_path, photo):
    """A second of a moving cat, 24 frames of 160×122: neither rate nor size is one of a default."""
    path = tmp_path / "cat.mkv"
    with write_video(path, Fraction(24)) as writer:
        for i in range(24):
            writer.write(photo[60:182, 100 + 2 * i : 260 + 2 * i])
    return path


def test_the_result_plays_as_long_as_the_input_at_its_size(cat_clip, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert main(["video", str(cat_clip), "--classes", "cat, sofa", "--out", str(out)]) == 0
    before, after = open_source(cat_clip), open_source(out)
    assert after.fps == before.fps == 24
    frames, drawn = list(before), list(after)
    assert len(drawn) == 24
    assert drawn[-1].time_s == pytest.approx(frames[-1].time_s, abs=0.01)
    assert drawn[0].image.shape == frames[0].image.shape
    assert np.abs(drawn[0].image.astype(int) - frames[0].image).mean() > 10  # Something is drawn.
    printed = capsys.readouterr()
    assert "24 frames → " in printed.out
    assert "frames per second" in printed.out
    assert "inference" in printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat.mkv", "out.mp4"]


def test_progress_goes_to_stderr(cat_clip, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pixelclip_sdk.cli.video._REPORT_EVERY_S", 0)
    main(["video", str(cat_clip), "--classes", "cat", "--out", str(tmp_path / "out.mp4")])
    assert "frame 24 of 24, " in capsys.readouterr().err


def test_without_out_it_prints_what_it_finds(cat_clip, capsys):
    assert main(["video", str(cat_clip), "--classes", "cat, sofa"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2].startswith("frame 23 (1.0 s): cat ")
    assert printed[-1].startswith("24 frames; ")


def test_labels_are_written_a_frame_a_file(cat_clip, tmp_path):
    assert main(["video", str(cat_clip), "--classes", "cat, sofa", "--labels", str(tmp_path / "labels")]) == 0
    files = sorted((tmp_path / "labels").iterdir())
    assert [file.name for file in files] == [f"{i:06d}.png" for i in range(24)]
    with Image.open(files[-1]) as labels:
        assert labels.size == (160, 122)
        assert set(np.unique(np.asarray(labels))) <= {0, 1}


def test_a_folder_works_like_a_video(tmp_path, photo):
    (tmp_path / "frames").mkdir()
    for i in range(3):
        Image.fromarray(photo).save(tmp_path / "frames" / f"{i}.jpg")
    out = tmp_path / "out.mp4"
    assert main(["video", str(tmp_path / "frames"), "--classes", "cat", "--out", str(out)]) == 0
    assert len(list(open_source(out))) == 3


def test_a_failure_keeps_the_frames_before_and_names_the_frame(tmp_path, photo, capsys):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(3):
        Image.fromarray(photo).save(frames / f"{i}.jpg")
    (frames / "3.jpg").write_bytes(b"no picture")
    out = tmp_path / "out.mp4"
    assert main(["video", str(frames), "--classes", "cat", "--out", str(out)]) == 1
    assert "frame 3: " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames", "out.partial.mp4"]
    assert len(list(open_source(tmp_path / "out.partial.mp4"))) == 3


@pytest.mark.parametrize(
    ("source", "out", "said"),
    [
        ("nowhere.mp4", "out.mp4", "does not exist"),
        ("", "out.mp4", "the input is an empty path"),
        ("cat.mkv", "cat.mkv", "is the input"),
        ("cat.mkv", "out.gif", "ending in .mp4"),
        ("987", "out.mp4", "camera"),
    ],
)
def test_what_cannot_be_done_is_one_line(cat_clip, tmp_path, capsys, monkeypatch, source, out, said):
    monkeypatch.chdir(tmp_path)
    before = cat_clip.read_bytes()
    assert main(["video", source, "--classes", "cat, sofa", "--out", out]) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert cat_clip.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["cat.mkv"]


def test_labels_do_not_replace_the_frames_that_they_are_of(tmp_path, photo, capsys):
    frames = tmp_path / "frames"
    frames.mkdir()
    Image.fromarray(photo).save(frames / "000000.png")
    before = (frames / "000000.png").read_bytes()
    assert main(["video", str(frames), "--classes", "cat", "--labels", f"{frames}/."]) == 1
    assert "is the input; name another folder" in capsys.readouterr().err
    assert (frames / "000000.png").read_bytes() == before


# In a process of its own, which a signal may end. Prints what `run_video` leaves.
STOPPED = """
import argparse, signal, sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.cli.video import run_video
from pixelclip_sdk.support.signals import interruptible
from pixelclip_sdk.video.sources import Frame, open_source
from pixelclip_sdk.video.writer import VideoWriter

folder, live, sent = Path(sys.argv[1]), sys.argv[2] == "True", int(sys.argv[3])
signal.signal(signal.SIGINT, signal.default_int_handler)
write = VideoWriter.write


class Camera:
    name, fps, count = "camera", Fraction(10), None

    def __iter__(self):
        for i in range(1000):
            yield Frame(np.zeros((48, 64, 3), np.uint8), i / 10, 0.1, 0)

    def close(self):
        pass


def interrupted(self, image, time_s=None):
    if time_s is not None and time_s > 0.5:
        signal.raise_signal(sent)
    write(self, image, time_s)


VideoWriter.write = interrupted
camera = Camera()
camera.live = live
spec = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)
words = Vocabulary(names=["red"], embeddings=np.array([[1, 0, 0]], np.float32))
options = argparse.Namespace(
    buffer="all", reopen=False, out=folder / "out.mp4", labels=None, json=False, smooth=None
)
before = signal.getsignal(signal.SIGTERM)
stopped = False
with Segmenter(FakeBackend(stride=8), spec, vocabulary=words) as segmenter:
    try:
        with interruptible():
            run_video(segmenter, camera, options)
    except KeyboardInterrupt:
        stopped = True
assert signal.getsignal(signal.SIGTERM) is before
(file,) = folder.iterdir()
print(stopped, file.name, len(list(open_source(file))))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("live", [True, False])
def test_stopping_keeps_the_frames_so_far(tmp_path, live, sent):
    command = [sys.executable, "-c", STOPPED, str(tmp_path), str(live), str(int(sent))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    expected = "False out.mp4 6" if live else "True out.partial.mp4 6"
    assert result.stdout.splitlines()[-1:] == [expected], (result.returncode, result.stderr)


def test_label_maps_of_an_earlier_run_are_not_mixed_with_new_ones(cat_clip, tmp_path, capsys):
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "notes.png").touch()  # No label map.
    command = ["video", str(cat_clip), "--classes", "cat, sofa", "--labels", str(labels)]
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in labels.iterdir()}
    assert len(before) == 25
    assert main(command) == 1
    assert "has 24 label maps of an earlier run, such as 000000.png. Remove them" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in labels.iterdir()} == before


def test_json_is_one_line_per_frame_and_nothing_else_on_stdout(cat_clip, capsys):
    assert main(["video", str(cat_clip), "--classes", "cat, sofa", "--json"]) == 0
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert [line["frame"] for line in lines] == list(range(24))
    assert lines[-1]["time_s"] == pytest.approx(23 / 24, abs=0.01)
    assert set(lines[0]["areas"]) == {"cat", "sofa"}
    assert "24 frames; " in printed.err


@pytest.mark.skipif(sys.platform == "win32", reason="closes stderr through the shell")
def test_a_closed_stderr_does_not_stop_a_video(cat_clip, tmp_path):
    code = (
        "import sys, pixelclip_sdk.cli.video as video; from pixelclip_sdk.cli.main import main; "
        "video._REPORT_EVERY_S = 0; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out.mp4"
    command = [
        sys.executable,
        "-c",
        code,
        "video",
        str(cat_clip),
        "--classes",
        "cat, sofa",
        "--out",
        str(out),
    ]
    assert subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], check=False).returncode == 0
    assert len(list(open_source(out))) == 24


def test_a_tilde_in_the_paths_is_the_home_folder(cat_clip, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["video", "~/cat.mkv", "--classes", "cat, sofa", "--out", "~/out.mp4"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [cat_clip.name, "out.mp4"]


def test_smoothing_makes_labels_calmer_and_can_be_off(cat_clip, tmp_path):
    def changes(*options):
        folder = tmp_path / "-".join(("labels", *options))
        assert (
            main(["video", str(cat_clip), "--classes", "cat, tiger, lynx", "--labels", str(folder), *options])
            == 0
        )
        maps = [np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))]
        assert len(maps) == 24
        return sum(int((before != after).sum()) for before, after in itertools.pairwise(maps))

    assert changes("--smooth", "off") == changes("--smooth", "0") > changes("--smooth", "1")


def test_smooth_is_seconds(cat_clip, capsys):
    with pytest.raises(SystemExit):
        main(["video", str(cat_clip), "--classes", "cat", "--smooth", "2"])
    assert "'2'; expected seconds from 0 to 1, auto or off" in capsys.readouterr().err
