"""Video that a GPU in host memory decodes, against PyAV on the CPU."""

import ctypes
import gc
import logging
import platform
from unittest import mock

import numpy as np
import pytest

av = pytest.importorskip("av", reason="PyAV is not installed")
from host_gpu.kernels import compiler, launch  # noqa: E402
from host_gpu.pyav import HostAv  # noqa: E402

from pixelclip_sdk import BackendError, BackendUnavailableError, Segmenter, open_source  # noqa: E402
from pixelclip_sdk.device.kernels import Kernels, Nv12  # noqa: E402
from pixelclip_sdk.device.video import colours  # noqa: E402
from pixelclip_sdk.video import decoder  # noqa: E402

# swscale has code of its own for every kind of processor, which rounds differently.
TOLERANCE = 0 if platform.machine().lower() in ("x86_64", "amd64") else 3


def video(path, frames, *, codec="libx264", pixels="yuv420p", turn=0, full=False):
    """Write a video with frames that depend on later ones."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if full:
            stream.codec_context.color_range = 2
        if turn:
            stream.set_display_rotation(turn)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def moving(photo):
    """Eight frames, 96×130."""
    return [np.ascontiguousarray(photo[60 + i : 252 + i : 2, 2 * i + 80 : 2 * i + 340 : 2]) for i in range(8)]


@pytest.fixture
def host(gpu):
    module = HostAv(gpu.cuda)
    with mock.patch.object(decoder, "import_av", return_value=module):
        yield module


def on_the_cpu(path):
    with mock.patch.object(decoder, "import_av", return_value=av):
        source = open_source(path)
        frames = list(source)
        source.close()
    return frames


def compare(results, frames, segmenter):
    assert len(results) == len(frames)
    for i, (result, frame) in enumerate(zip(results, frames, strict=True)):
        assert result.frame.index == i
        assert result.frame.time_s == frame.time_s
        assert result.image.shape == frame.image.shape
        assert np.abs(result.image.astype(int) - frame.image).max() <= TOLERANCE
        np.testing.assert_array_equal(result.labels, segmenter.predict(result.image).labels)


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")
@pytest.mark.parametrize("size", [(2, 2), (98, 130), (48, 1280)])
def test_the_kernel_is_ffmpegs_conversion(size):
    kernels = Kernels(lambda name, grid, block, values, types, _: launch(name, grid, block, values, types))
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
    planes = frame.reformat(format="nv12").planes
    bright, pairs = (np.frombuffer(plane, np.uint8) for plane in planes)
    reformatter = av.video.reformatter.VideoReformatter()
    for matrix in (1, 5, 6, 7, 9):
        for full in (False, True):
            frame.colorspace, frame.color_range = matrix, 1 + full
            out = np.full((*size, 3), 77, np.uint8)
            rows = planes[0].line_size, planes[1].line_size
            source = Nv12(bright.ctypes.data, rows[0], pairs.ctypes.data, rows[1])
            kernels.nv12(source, size, colours(matrix, full=full), out.ctypes.data, None)
            expected = decoder._to_rgb(reformatter, frame)
            assert np.abs(out.astype(int) - expected).max() <= TOLERANCE, (matrix, full)
    assert colours(8, full=False) is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"codec": "libx265"},
        {"codec": "mpeg4"},
        {"turn": 90},
        {"turn": -90},
        {"turn": 180},
        {"full": True},
    ],
    ids=str,
)
def test_a_file_is_that_of_the_cpu(gpu, host, moving, tmp_path, options, caplog):
    path = video(tmp_path / "film.mp4", moving, **options)
    segmenter, expected = gpu.load(), on_the_cpu(path)
    with caplog.at_level(logging.INFO):
        results = list(segmenter.stream(path, smooth=None))
    compare(results, expected, segmenter)
    assert host.decoded == 8
    assert caplog.text.count("film.mp4: frames come from the GPU") == 1
    assert gpu.cuda.counts["nv12"] == 8


def test_frames_are_not_copied_and_their_memory_is_used_again(gpu, host, moving, tmp_path):
    path = video(tmp_path / "film.mp4", moving * 3)
    segmenter = gpu.load()
    used = []
    for result in segmenter.stream(path, smooth=None):
        assert result.labels.size
        del result
        used.append([size for _, size, _, _ in list(gpu.cuda.memory.values())].count(96 * 130 * 3))
    # Those that wait, are segmented or are finished at the same time.
    assert 1 <= max(used) <= 10
    assert gpu.cuda.counts["copy 1"] < 60  # Tables and words only.
    segmenter.close()
    gc.collect()
    assert host.decoded == 24
    assert gpu.cuda.memory == {}


@pytest.mark.usefixtures("host")
def test_a_smoothed_stream_and_pictures_that_are_read_later(gpu, cpu, moving, tmp_path):
    path = video(tmp_path / "film.mp4", moving)
    segmenter = gpu.load()
    for result, expected in zip(segmenter.stream(path), cpu.stream(path), strict=True):
        assert (result.labels == expected.labels).mean() > 0.999
        np.testing.assert_allclose(result.logits, expected.logits, atol=1e-5)
    assert gpu.cuda.counts["blend"] == 8
    assert gpu.cuda.counts["copy 1"] < 60  # Tables and words only.
    results = list(segmenter.stream(path, smooth=None))
    segmenter.close()
    for result, frame in zip(results, on_the_cpu(path), strict=True):
        assert np.abs(result.image.astype(int) - frame.image).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pixels": "yuv444p"}, "film.mkv: frames come from the CPU"),
        ({"codec": "ffv1"}, "decoded on the CPU: no GPU decodes ffv1"),
    ],
    ids=str,
)
def test_what_no_gpu_decodes_is_decoded_on_the_cpu(gpu, host, moving, tmp_path, options, said, caplog):
    path = video(tmp_path / "film.mkv", moving, **options)
    segmenter, expected = gpu.load(), on_the_cpu(path)
    with caplog.at_level(logging.INFO):
        compare(list(segmenter.stream(path, smooth=None)), expected, segmenter)
    assert caplog.text.count(said) == 1
    assert gpu.cuda.counts["nv12"] == 0
    assert host.decoded in (0, 8)


def test_a_gpu_without_a_decoder_and_one_that_gives_up(gpu, host, moving, tmp_path, caplog):
    path = video(tmp_path / "film.mp4", moving)
    segmenter, expected = gpu.load(), on_the_cpu(path)
    host.broken = True
    compare(list(segmenter.stream(path, smooth=None)), expected, segmenter)
    assert "is decoded on the CPU. The GPU's video decoder: " in caplog.text
    host.broken, host.software = False, 5
    with caplog.at_level(logging.INFO):
        compare(list(segmenter.stream(path, smooth=None)), expected, segmenter)
    assert caplog.text.count("frames come from the GPU") == caplog.text.count("frames come from the CPU") == 1
    assert gpu.cuda.counts["nv12"] == 5


def test_damaged_and_truncated_files(gpu, host, moving, tmp_path):
    data = bytearray(video(tmp_path / "film.ts", moving * 4).read_bytes())
    (tmp_path / "short.ts").write_bytes(data[: len(data) // 2])
    data[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    (tmp_path / "hole.ts").write_bytes(data)
    segmenter = gpu.load()
    for name in ("short.ts", "hole.ts"):
        expected = on_the_cpu(tmp_path / name)
        results = list(segmenter.stream(tmp_path / name, smooth=None))
        compare(results, expected, segmenter)
        assert [result.frame.damaged for result in results] == [frame.damaged for frame in expected]
    assert host.decoded


def test_a_gpu_without_memory(gpu, host, moving, tmp_path):
    path = video(tmp_path / "film.mp4", moving)
    segmenter = gpu.load()
    room, gpu.cuda.room = gpu.cuda.room, 1
    with pytest.raises(BackendError, match="out of memory"):
        list(segmenter.stream(path, smooth=None))
    gpu.cuda.room = room
    assert len(list(segmenter.stream(path, smooth=None))) == 8
    assert host.decoded > 8


def test_open_sources_and_several_files(gpu, host, moving, tmp_path):
    paths = [video(tmp_path / f"{i}.mp4", moving[i:]) for i in range(3)]
    segmenter = gpu.load()
    results = list(segmenter.stream(open_source(paths[0]), *paths[1:], smooth=None))
    for i, path in enumerate(paths):
        own = [result for result in results if result.frame.source == i]
        compare(own, on_the_cpu(path), segmenter)
    assert host.decoded == 8 + 7 + 6


@pytest.mark.gpu
def test_on_a_real_gpu(moving, tmp_path, caplog):
    """NVIDIA's decoder gives the same samples as FFmpeg's, so all pixels are equal."""
    try:
        ctypes.CDLL("libnvcuvid.so.1")  # FFmpeg says nothing without it, and decodes on the CPU.
    except OSError as error:
        pytest.skip(f"the driver's decoder is missing: {error}. In a container, see docs/gpu.md.")
    try:
        segmenter = Segmenter.from_pretrained("pixelclip-lite", backend="onnx-cuda", classes=["cat", "sofa"])
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    big = [np.repeat(np.repeat(frame, 8, axis=0), 8, axis=1) for frame in moving]
    with segmenter, caplog.at_level(logging.INFO):
        for i, options in enumerate([{}, {"codec": "libx265"}, {"turn": 90}]):
            path = video(tmp_path / f"{i}.mp4", big, **options)
            results = list(segmenter.stream(path, smooth=None))
            if "The GPU's video decoder" in caplog.text:
                pytest.skip(caplog.text)
            compare(results, on_the_cpu(path), segmenter)
            assert f"{i}.mp4: frames come from the GPU" in caplog.text
