import gc
import socket
import subprocess
import sys
import weakref

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import ImageError
from pixelclip_sdk.video.sources import open_source
from pixelclip_sdk.video.writer import write_video

av = pytest.importorskip("av")


def read(source):
    """All frames of a source."""
    opened = open_source(source)
    try:
        return list(opened)
    finally:
        opened.close()


def test_a_sideways_video_is_turned_upright(tmp_path):
    path = tmp_path / "sideways.mp4"
    upright = np.zeros((64, 48, 3), np.uint8)
    upright[:16] = 255  # White above.
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(-90)  # To be shown turned clockwise.
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(upright)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frame = read(path)[0]
    assert frame.image.shape == (64, 48, 3)
    assert np.abs(frame.image.astype(int) - upright).mean() < 3


def test_damaged_pieces_are_skipped_and_counted(noise):
    path = noise("noise.mp4")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(np.random.default_rng(1).integers(0, 256, 2000, dtype=np.uint8))
    path.write_bytes(data)
    frames = read(path)
    assert 30 <= len(frames) < 40
    assert frames[0].damaged == 0
    assert len(frames) + frames[-1].damaged == 40


def test_a_file_that_is_cut_off_gives_what_it_has_and_a_warning(noise, caplog):
    path = noise("noise.mkv")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 5 < len(read(path)) < 30
    assert "it ended after" in caplog.text


@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat", "list.sdp"])
@pytest.mark.parametrize("other", ["other.mp4", "http://{}/other.mp4", "tcp://{}"])
def test_a_playlist_opens_nothing_else(tmp_path, noise, name, other):
    noise("other.mp4")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        target = other.format(f"127.0.0.1:{server.getsockname()[1]}")
        for content in (
            f"ffconcat version 1.0\nfile {target}\n",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{target}\n"
            "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        ):
            (tmp_path / name).write_text(content)
            with pytest.raises(ImageError, match="cannot be opened as a video"):
                open_source(tmp_path / name)
        with pytest.raises(TimeoutError):
            server.accept()


def encoded(path, *films, pixels="yuv420p", codec="mpeg4"):
    """Writes a file of several video streams; each is its number of frames, size and disposition."""
    with av.open(str(path), "w") as container:
        streams = []
        for _, (height, width), disposition in films:
            stream = container.add_stream("mjpeg" if disposition else codec, rate=25)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if disposition else pixels
            stream.disposition = disposition
            streams.append(stream)
        for stream, (count, size, _) in zip(streams, films, strict=True):
            for i in range(count):
                picture = np.full((*size, 3), 2 * i, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_the_film_is_read_and_not_the_thumbnail_before_it(tmp_path, suffix):
    path = encoded(tmp_path / f"film{suffix}", (1, (480, 640), 0), (30, (48, 64), 0))
    frames = read(path)
    assert len(frames) == 30
    assert frames[0].image.shape == (48, 64, 3)


def test_a_cover_picture_is_no_video(tmp_path):
    cover = av.stream.Disposition.attached_pic
    path = encoded(tmp_path / "film.mp4", (1, (480, 640), cover), (30, (48, 64), 0))
    assert len(read(path)) == 30
    path = encoded(tmp_path / "sound.mp4", (1, (480, 640), cover))
    with pytest.raises(ImageError, match="has no video; it is audio with a cover picture"):
        open_source(path)


def test_an_edit_list_is_no_damage(tmp_path, caplog):
    path = encoded(tmp_path / "cut.mp4", (100, (48, 64), 0))
    data = bytearray(path.read_bytes())
    at = data.find(b"elst") + 12  # After the name, the version and the number of entries.
    duration = int.from_bytes(data[at : at + 4], "big")
    data[at : at + 4] = (duration // 2).to_bytes(4, "big")
    path.write_bytes(data)
    source = open_source(path)
    assert source.count == 50
    assert len(list(source)) == 50
    assert "it ended after" not in caplog.text


def test_a_variable_rate_is_no_damage(tmp_path, caplog):
    path = tmp_path / "slower.mkv"
    with write_video(path, 50) as writer:  # The stated rate.
        for i in range(40):
            writer.write(np.zeros((48, 64, 3), np.uint8), i / 10)
    assert len(read(path)) == 40
    assert "it ended after" not in caplog.text


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("size", "matrix", "tag"), [((48, 64), 5, 6), ((48, 64), 1, 1), ((720, 64), 1, None)]
)
def test_the_tagged_matrix_and_range_are_respected(tmp_path, full, size, matrix, tag):
    path = tmp_path / "colour.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.color_range = 2 if full else 1
        if tag is not None:  # Without a tag, 720 lines mean BT.709.
            stream.codec_context.colorspace = tag
        picture = av.VideoFrame.from_ndarray(np.full((*size, 3), (30, 200, 30), np.uint8), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range=2 if full else 1)
        picture.pts = 0
        if tag is None:
            picture.colorspace = 2
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    (frame,) = read(path)
    assert np.abs(frame.image.astype(int) - (30, 200, 30)).max() <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
@pytest.mark.parametrize("size", [(12000, 12000), (38464, 4926), (6875, 33393)])
def test_frames_beyond_the_limit_of_pictures_are_refused_before_decoding(tmp_path, size):
    path = tmp_path / "bomb.gif"
    frames = [Image.new("P", (8, 8), i) for i in range(2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    data = bytearray(path.read_bytes())
    data[6:10] = size[0].to_bytes(2, "little") + size[1].to_bytes(2, "little")  # The size of the canvas.
    path.write_bytes(data)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "from pixelclip_sdk.video.sources import open_source\n"
        "list(open_source(sys.argv[1]))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "ImageError: no frame could be decoded" in result.stderr
    assert "at most 89478485 pixels" in result.stderr


def test_the_limit_is_pillows(clip, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3071)
    with pytest.raises(ImageError, match="has frames of 64×48, more than 3071 pixels"):
        open_source(clip)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert len(read(clip)) == 30


def test_a_closed_video_is_freed_at_once_with_its_threads(clip):
    """Not at the next garbage collection: a server opens the same camera again and again."""
    gc.disable()
    try:
        source = open_source(clip)
        assert next(iter(source)).image.shape == (48, 64, 3)
        freed = weakref.ref(source)
        source.close()
        del source
        assert freed() is None
    finally:
        gc.enable()
