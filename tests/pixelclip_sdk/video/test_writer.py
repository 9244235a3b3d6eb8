from fractions import Fraction

import numpy as np
import pytest

from pixelclip_sdk import OutputError
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


def test_frames_that_were_dropped_leave_their_time(tmp_path):
    with write_video(tmp_path / "out.mp4", Fraction(10)) as writer:
        for time_s in (0.0, 0.1, 0.5, 0.501, 1.0):  # The fourth is too early for its place.
            writer.write(GREY, time_s)
    assert opened(tmp_path / "out.mp4")[2] == pytest.approx([0.0, 0.1, 0.5, 0.6, 1.0])


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


def test_nothing_half_written_is_left_and_an_old_file_stays(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")

    def write(*images, error=None):
        with write_video(path) as writer:
            for image in images:
                writer.write(image)
            if error is not None:
                raise error

    with pytest.raises(KeyError):
        write(GREY, error=KeyError())
    with pytest.raises(OutputError, match=r"cannot write .*No space left"):
        write(GREY, error=av.error.OSError(28, "No space left on device"))
    with pytest.raises(OutputError, match="a video has one size"):
        write(GREY, GREY[:32])
    with pytest.raises(OutputError, match="no frames"):
        write()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]


def test_where_no_video_can_be_written_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"ending in \.mp4"), write_video(tmp_path / "out.gif"):
        pass
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"), write_video(tmp_path / "file" / "out.mp4"):
        pass
