import errno
import os
import signal
import stat
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from pixelclip_sdk import ImageError, OutputError
from pixelclip_sdk.video.decoder import explain
from pixelclip_sdk.video.sources import open_source
from pixelclip_sdk.video.writer import write_video

av = pytest.importorskip("av")
GREY = np.full((48, 64, 3), 128, np.uint8)


def opened(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return stream.codec_context.name, stream.average_rate, [frame.time for frame in frames], frames[0]


def test_rate_size_and_length_are_kept(tmp_path):
    with write_video(tmp_path / "out.mp4", Fraction(30000, 1001)) as writer:
        for _ in range(7):
            writer.write(GREY)
    codec, rate, times, frame = opened(tmp_path / "out.mp4")
    assert codec == "h264"
    assert rate == Fraction(30000, 1001)
    assert times == pytest.approx([i * 1001 / 30000 for i in range(7)], abs=1e-4)
    assert (frame.height, frame.width) == (48, 64)


def test_odd_sides_are_drawn_out_by_a_pixel(tmp_path):
    image = np.zeros((47, 63, 3), np.uint8)
    image[:, 60:] = 200
    with write_video(tmp_path / "out.mp4") as writer:
        writer.write(image)
    (frame,) = open_source(tmp_path / "out.mp4")
    assert frame.image.shape == (48, 64, 3)
    assert np.abs(frame.image[:, 62:].astype(int) - 200).max() < 20


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frame_times_are_kept(tmp_path, suffix):
    times = [0.0, 0.1, 0.5, 0.501, 1.0, 1.033, 3.0]  # A variable rate, and dropped frames.
    with write_video(tmp_path / f"out{suffix}", Fraction(10)) as writer:
        for time_s in times:
            writer.write(GREY, time_s)
    assert opened(tmp_path / f"out{suffix}")[2] == pytest.approx(times, abs=1e-3)


def test_a_stated_rate_of_1000_changes_no_times(tmp_path):
    times = [i / 30 for i in range(90)]
    with write_video(tmp_path / "out.mp4", Fraction(1000)) as writer:
        for time_s in times:
            writer.write(GREY, time_s)
    _, rate, written, _ = opened(tmp_path / "out.mp4")
    assert written == pytest.approx(times, abs=1e-4)
    assert float(rate) == pytest.approx(30, abs=0.1)


def test_equal_and_decreasing_times_move_a_millisecond(tmp_path):
    with write_video(tmp_path / "out.mp4") as writer:
        for time_s in (-0.5, 0.2, 0.2, 0.1, 0.4):
            writer.write(GREY, time_s)
    assert opened(tmp_path / "out.mp4")[2] == pytest.approx([0, 0.2, 0.201, 0.202, 0.4], abs=1e-4)


def test_the_rate_may_be_a_number(tmp_path):
    for fps, expected in ((30, 30), (29.97, 29.97), (24000 / 1001, 24000 / 1001)):
        with write_video(tmp_path / "out.mp4", fps) as writer:
            for _ in range(20):
                writer.write(GREY)
        assert float(opened(tmp_path / "out.mp4")[1]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("size", "matrix"), [((48, 64), 6), ((720, 64), 1), ((48, 1280), 1)])
@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_colours_are_tagged_and_read_back(tmp_path, monkeypatch, size, matrix, encoder):
    monkeypatch.setattr("pixelclip_sdk.video.writer._ENCODERS", (encoder,))
    path = tmp_path / "out.mkv"
    with write_video(path) as writer:
        writer.write(np.full((*size, 3), (30, 200, 30), np.uint8))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_primaries, context.color_trc, context.color_range
    assert tags == (matrix, 1, 1, 1)
    (frame,) = open_source(path)
    assert np.abs(frame.image.astype(int) - (30, 200, 30)).max() <= 3


def test_without_h264_it_is_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelclip_sdk.video.writer._ENCODERS", ("no-such-encoder", "mpeg4"))
    with write_video(tmp_path / "out.mp4", Fraction(30000, 1001)) as writer:
        for _ in range(5):
            writer.write(GREY)
    codec, _, times, _ = opened(tmp_path / "out.mp4")
    assert (codec, len(times)) == ("mpeg4", 5)


def test_an_absurd_rate_is_not_believed(tmp_path):
    with write_video(tmp_path / "out.mp4", Fraction(90000)) as writer:
        writer.write(GREY)
        writer.write(GREY)
    assert opened(tmp_path / "out.mp4")[1] == 25


@pytest.mark.parametrize("error", [KeyError(), KeyboardInterrupt(), GeneratorExit()])
def test_an_error_keeps_the_frames_so_far_and_the_old_file(tmp_path, caplog, error):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")

    def write(count):
        with write_video(path) as writer:
            for _ in range(count):
                writer.write(GREY)
            raise error

    for partial in ("out.partial.mp4", "out.partial-2.mp4"):  # The first one is not overwritten.
        with pytest.raises(type(error)):
            write(7)
        assert len(opened(tmp_path / partial)[2]) == 7
        assert f"out.mp4 was not finished. The recording until then is in {tmp_path / partial}" in caplog.text
    with pytest.raises(type(error)):
        write(0)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_change_of_size_keeps_the_frames_before(tmp_path):
    def write(*images):
        with write_video(tmp_path / "out.mp4") as writer:
            for image in images:
                writer.write(image)

    with pytest.raises(OutputError, match="a frame is 64×32, those before it 64×48; a video has one size"):
        write(GREY, GREY[:32])
    assert len(opened(tmp_path / "out.partial.mp4")[2]) == 1


def test_frames_of_another_kind_are_refused(tmp_path):
    for image, time_s in ((GREY / 255, None), (GREY[..., 0], None), (GREY, float("nan"))):
        with pytest.raises(ImageError, match="expected"), write_video(tmp_path / "out.mp4") as writer:
            writer.write(image, time_s)
    with pytest.raises(OutputError, match="no frames"), write_video(tmp_path / "out.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


_RECORDER = """
import resource, signal, sys
import numpy as np
from pixelclip_sdk.video.writer import write_video
limit = int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
with write_video(sys.argv[1], 25) as writer:
    for i in range(1000):
        writer.write(np.roll(noise, i, axis=0))
        if i == 150 and not limit:
            print("recording", flush=True)
            signal.pause()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_killed_recording_plays(tmp_path, spawn, sent, suffix):
    command = [sys.executable, "-c", _RECORDER, str(tmp_path / f"out{suffix}"), "0"]
    process = spawn(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "recording\n"
    process.send_signal(sent)
    assert process.wait(60) == -sent
    partial = tmp_path / f"out.partial{suffix}"
    assert list(tmp_path.iterdir()) == [partial]
    frames = list(open_source(partial))
    assert len(frames) > 80  # Of 151; a fragment is a second, and the encoder holds some frames.
    assert frames[-1].time_s == pytest.approx((len(frames) - 1) / 25)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_file_that_cannot_grow_keeps_what_it_has(tmp_path, suffix):
    command = [sys.executable, "-c", _RECORDER, str(tmp_path / f"out{suffix}"), "4000000"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "OutputError: cannot write" in result.stderr
    assert "File too large" in result.stderr
    assert "Free some space" not in result.stderr
    partial = tmp_path / f"out.partial{suffix}"
    assert list(tmp_path.iterdir()) == [partial]
    assert len(list(open_source(partial))) > 50


def test_only_a_full_disk_is_called_full():
    assert explain(av.error.OSError(errno.ENOSPC, "No space left on device")).endswith("Free some space")
    assert explain(av.error.OSError(errno.EIO, "Input/output error")) == "Input/output error"


def test_a_long_name_has_room_for_the_partial_file(tmp_path):
    path = tmp_path / ("猫" * 83 + ".mp4")
    with write_video(path) as writer:
        writer.write(GREY)
    assert list(tmp_path.iterdir()) == [path]


def test_a_colon_in_a_relative_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with write_video("a:b.mp4") as writer:
        writer.write(GREY)
    assert [path.name for path in tmp_path.iterdir()] == ["a:b.mp4"]
    assert len(list(open_source("a:b.mp4"))) == 1


def test_where_no_video_can_be_written_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"ending in \.mp4"), write_video(tmp_path / "out.gif"):
        pass
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"), write_video(tmp_path / "file" / "out.mp4"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot flush folders")
def test_a_finished_video_is_on_the_disk(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync

    def recorded(handle):
        flushed.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    with write_video(tmp_path / "out.mp4") as writer:
        writer.write(GREY)
        assert flushed == []
    assert flushed == [False, True]  # The file, then the folder with its new name.


@pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")
def test_the_mode_of_a_replaced_video_and_a_link_to_it_are_kept(tmp_path):
    film, link = tmp_path / "disk" / "film.mp4", tmp_path / "film.mp4"
    film.parent.mkdir()
    film.write_bytes(b"old")
    film.chmod(0o600)
    link.symlink_to(film)
    with write_video(link) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
        (partial,) = film.parent.glob("*.partial*")
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert stat.S_IMODE(film.stat().st_mode) == 0o600
    assert film.stat().st_size > 100
