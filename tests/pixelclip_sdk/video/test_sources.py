import contextlib
import functools
import http.server
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import ImageError
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.video import decoder, reader
from pixelclip_sdk.video.sources import import_av, open_source
from pixelclip_sdk.video.writer import write_video


def read(source):
    """All frames of a source."""
    opened = open_source(source)
    try:
        return list(opened)
    finally:
        opened.close()


def test_a_video_says_what_it_is(clip):
    source = open_source(clip)
    assert (source.live, source.fps, source.count) == (False, 25, 30)
    frames = list(source)
    assert len(frames) == 30
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.flags.c_contiguous
    assert np.abs(frames[1].image.astype(int) - (0, 255, 0)).max() < 12  # Green, with the encoder's loss.
    source.close()
    source.close()


def test_a_folder_comes_in_natural_order(tmp_path):
    for number in (10, 9, 1, 100):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    source = open_source(tmp_path)
    assert source.count == 4
    assert [frame.image[0, 0, 0] for frame in source] == [1, 9, 10, 100]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="has no image files"):
        open_source(tmp_path / "empty")


def test_iterables_hold_whatever_predict_takes(tmp_path):
    grey = np.full((6, 6), 7, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    frames = read([grey, Image.fromarray(grey), tmp_path / "grey.png"])
    assert [frame.image.tolist() for frame in frames] == [np.full((6, 6, 3), 7).tolist()] * 3
    video = np.arange(5, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    assert [frame.image[0, 0, 0] for frame in read(video)] == list(range(5))


def test_what_is_no_video_is_refused(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "notes.mp4").write_text("no video")
    with pytest.raises(ImageError, match=r"notes.mp4 cannot be opened as a video"):
        open_source(tmp_path / "notes.mp4")
    with pytest.raises(ImageError, match="does not exist"):
        open_source(tmp_path / "nowhere.mp4")
    with pytest.raises(ImageError, match=r"/dev/video87 cannot be opened as a camera|cameras go by number"):
        open_source(87)
    with pytest.raises(ImageError, match="camera -1"):
        open_source(-1)


def test_sound_alone_is_no_video(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ImageError, match="has no video in it"):
        open_source(path)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def server(clip):
    """The clip's folder over HTTP, on this machine."""
    handler = functools.partial(_Quiet, directory=str(clip.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_an_address_streams(server, clip, fake):
    source = open_source(f"http://{server}/{clip.name}")
    assert not source.live  # It has an end, so no frame needs to be dropped.
    assert len(list(fake.stream(source))) == 30


def test_a_protocol_that_ffmpeg_lacks_is_refused_with_what_to_do():
    """PyAV's wheels have no SRT; one that was built with it is refused because nobody answers."""
    with pytest.raises(ImageError, match=r"not found\. The installed FFmpeg lacks it\. Relay|Is it there"):
        open_source("srt://127.0.0.1:9?timeout=100000")


def test_an_address_that_does_not_answer_is_refused_without_its_password(server):
    with pytest.raises(ImageError, match="cannot be opened as a video") as error:
        open_source(f"http://me:secret@{server}/nothing.mp4")
    assert "secret" not in str(error.value)
    assert server in str(error.value)
    for address in ("http://me:sec@r3t@{}/x.mp4", "http://me:sec/r3t@{}/x.mp4", "http://{}/x.mp4?pwd=secr3t"):
        with pytest.raises(ImageError) as error:
            open_source(address.format(server))
        assert "r3t" not in str(error.value)
        assert server in str(error.value)


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@{}/x.mp4;token=secret#secret", "rtmp://{}/app/secret", "http://{}/x?k=secret"],
)
def test_no_credentials_in_tracebacks(address):
    pytest.importorskip("av")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ImageError) as error:
        open_source(address.format(host))
    text = "".join(traceback.format_exception(error.value))
    assert host in text
    assert "secret" not in text.replace("test_no_credentials_in_tracebacks", "")
    assert "secret" not in str(error.value.__cause__.filename)


def test_a_file_address_is_a_file(clip):
    assert len(read(f"file://{clip}")) == 30


def test_an_address_may_be_a_path(server, clip):
    assert len(read(Path(f"http://{server}/{clip.name}"))) == 30
    with pytest.raises(ImageError, match="cannot be opened as a video") as error:
        open_source(Path(f"http://me:secret@{server}/nothing.mp4"))
    assert "secret" not in str(error.value)


def test_results_and_hidden_files_in_a_folder_are_left_out(tmp_path):
    for name in ("1.png", "1.overlay.png", "1.labels.png", "._1.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert len(read(tmp_path)) == 1
    (tmp_path / "1.png").unlink()
    with pytest.raises(ImageError, match="has only results"):
        open_source(tmp_path)


def test_a_folder_s_images_are_those_that_pillow_reads(tmp_path, photo):
    for name in ("10.png", "9.JPG", "2.webp"):
        Image.fromarray(photo[:8, :8]).save(tmp_path / name)
    for name in ("notes.pdf", "clip.mpg", "table.h5", "map.grib", "read.me"):
        (tmp_path / name).write_bytes(b"no picture")
    assert [file.name for file in find_images(tmp_path)] == ["2.webp", "9.JPG", "10.png"]


def test_a_folder_that_cannot_be_read_is_refused():
    with pytest.raises(ImageError, match="cannot be read: "):
        find_images(Path("x" * 300))
    with pytest.raises(ImageError, match="cannot be reached"):
        open_source("x" * 300)


def test_without_pyav_video_says_what_to_install_and_arrays_work(clip, tmp_path):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "import numpy as np\n"
        "from pixelclip_sdk import BackendUnavailableError, Segmenter\n"
        "segmenter = Segmenter.from_pretrained(classes=['cat'])\n"
        "print(len(list(segmenter.stream([np.zeros((48, 64, 3), np.uint8)] * 3))))\n"
        f"try: segmenter.stream({str(clip)!r})\n"
        "except BackendUnavailableError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout.startswith("3\n"), result.stderr
    assert 'pip install "pixelclip-sdk[video]"' in result.stdout


def test_pyav_is_loaded_with_the_first_video_only():
    pytest.importorskip("av")
    code = "import sys, pixelclip_sdk.cli.main, pixelclip_sdk.video.pipeline; print('av' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
    assert import_av().__name__ == "av"


# Runs in its own process: PyAV holds the GIL while it waits for a connection.
_SENDER = """
import sys, time, av, numpy as np
target, frames, times = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    with av.open(target, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 5
        for i in range(frames):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[..., i % 3] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            time.sleep(0.02)
"""


@pytest.fixture(params=["tcp", "udp"])
def broadcast(request):
    """An address at which a live MPEG-TS stream of red, green, blue is sent until the test ends."""
    pytest.importorskip("av")
    with sending(request.param, frames=2000) as address:
        yield address


@contextlib.contextmanager
def sending(scheme, frames, times=1):
    kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        address = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
    # TCP waits for a connection; UDP sends without one.
    target = address + ("?listen=1" if scheme == "tcp" else "?pkt_size=1316")
    sender = subprocess.Popen(
        [sys.executable, "-c", _SENDER, target, str(frames), str(times)], stderr=subprocess.DEVNULL
    )
    try:
        yield address
    finally:
        sender.kill()
        sender.wait()


def opened(address):
    for _ in range(150):  # The sender needs time to start.
        with contextlib.suppress(ImageError):
            return open_source(address)
        time.sleep(0.2)
    raise AssertionError(f"nobody sends at {address}")


@pytest.mark.parametrize(
    ("reset", "reason"), [(False, "no data for 1 seconds"), (True, "Connection reset by peer")]
)
def test_a_lost_stream_ends_a_recording_that_plays(fake, tmp_path, noise, monkeypatch, reset, reason):
    monkeypatch.setattr(decoder, "_TIMEOUT_S", 1.0)
    data = noise("sent.mkv").read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)
                if reset:
                    time.sleep(0.3)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    ended.wait(20)

        ended = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"

        def record():
            with write_video(tmp_path / "out.mp4") as writer:
                for result in fake.stream(address, buffer="all"):
                    writer.write(result.image, result.frame.time_s)

        with pytest.raises(ImageError, match=f"frame 40: reading failed: {reason}"):
            record()
        ended.set()
        thread.join()
    assert len(read(tmp_path / "out.partial.mp4")) == 40


def test_a_live_stream_that_ends_is_opened_again_if_asked(fake, caplog, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.setattr(reader, "_RETRY_S", 0.1)
    with sending("tcp", frames=12, times=2) as address:
        source = opened(address)
        started, seen = time.monotonic(), []
        with contextlib.closing(fake.stream(source, on_error="reopen", buffer="all")) as results:
            for result in results:
                seen.append((result.frame.index, result.frame.time_s))
                if len(seen) == 18:
                    break
    assert [index for index, _ in seen] == list(range(18))
    times = [time_s for _, time_s in seen]
    assert times == sorted(times)
    assert times[-1] < time.monotonic() - started + 1
    assert f"{address}: it ended. Reconnecting every second." in caplog.text
    assert f"{address}: reconnected at attempt " in caplog.text


def test_live_streams_over_a_network(broadcast, fake):
    source = opened(broadcast)
    assert source.live
    seen = []
    with contextlib.closing(fake.stream(source)) as results:
        for result in results:
            assert result.labels.shape == (48, 64)
            assert result.labels.min() == result.labels.max()
            seen.append((result.frame.index, int(result.labels[0, 0])))
            if len(seen) == 8:
                break
    indices = [index for index, _ in seen]
    assert indices == sorted(set(indices))
    assert {label for _, label in seen} <= {0, 1, 2}


def test_a_picture_is_refused_with_what_reads_it(tmp_path, photo):
    Image.fromarray(photo).resize((64, 48)).save(tmp_path / "photo.jpg")
    with pytest.raises(ImageError, match=r"photo.jpg is a picture, not a video. Use predict"):
        open_source(str(tmp_path / "photo.jpg"))
