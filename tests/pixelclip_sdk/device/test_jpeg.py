"""JPEG files decoded on a GPU in host memory, against Pillow; by the real nvImageCodec if it is here."""

import gc
import importlib
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from host_gpu.nvimgcodec import HostNvimgcodec, installed
from PIL import Image, ImageCms

from pixelclip_sdk import BackendError, BackendUnavailableError, ImageError, Segmenter
from pixelclip_sdk.device.jpeg import Jpeg, read_jpeg
from pixelclip_sdk.image import load_image

try:
    REAL: Any = importlib.import_module("nvidia.nvimgcodec")
except ImportError:
    REAL = None


def jpeg(picture: np.ndarray | Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def turned(picture: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(picture, exif=exif)


def same(segmenter, file, **settings) -> None:
    """A file gives what the pixels give that Pillow decoded. `test_pipeline` compares with the CPU."""
    check(segmenter.predict(file, **settings), segmenter.predict(load_image(file), **settings))


def check(found, expected) -> None:
    for name in ("labels", "logits", "image"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.refine == expected.refine


@pytest.fixture(params=["Pillow", "nvImageCodec"])
def codec(gpu, request):
    real = None
    if request.param == "nvImageCodec":
        if REAL is None:
            pytest.skip("nvidia-nvimgcodec is not installed")
        real = REAL
    with installed("nvidia.nvimgcodec", HostNvimgcodec(gpu.cuda, real)) as module:
        yield module


def test_files_of_every_plain_kind(gpu, frames, codec, tmp_path, caplog):
    segmenter, frame = gpu.load(), frames[1]
    kinds = [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30, "restart_marker_rows": 1}]
    files = [jpeg(frame, **options) for options in kinds]
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    files += [jpeg(Image.fromarray(frame).convert("L")), jpeg(frame[:40, :51], icc_profile=srgb)]
    assert "JPEG" not in segmenter.engine_description
    with caplog.at_level(logging.INFO):
        for file in files:
            same(segmenter, file)
        (tmp_path / "photo.jpg").write_bytes(files[0])
        for path in (tmp_path / "photo.jpg", str(tmp_path / "photo.jpg")):
            same(segmenter, path)
    # And the sample.
    assert codec.decoded == len(files) + 3
    assert codec.decoders == 1
    assert caplog.text.count("JPEG files are decoded on the GPU by nvImageCodec 0.9.0") == 1
    assert segmenter.engine_description.endswith(", JPEG by nvImageCodec 0.9.0")
    assert segmenter.with_classes(segmenter.vocabulary).engine_description == segmenter.engine_description


@pytest.mark.parametrize("refine", ["off", "edges"])
def test_every_orientation(gpu, frames, codec, refine, local):
    segmenter = gpu.load(refine=refine, classes=local)
    orientations = range(10) if refine == "off" else (5, 8)
    for i, orientation in enumerate(orientations):
        file = turned(frames[1][:41], orientation)
        assert codec.decoded == i + bool(i)  # The sample comes first.
        same(segmenter, file)


@pytest.mark.usefixtures("codec")
def test_labels_are_there_and_the_picture_is_copied_when_it_is_read(gpu, frames):
    segmenter, file = gpu.load(), jpeg(frames[1])
    uploads = gpu.cuda.counts["copy 1"]
    result = segmenter.predict(file)
    assert isinstance(result.__dict__["labels"], np.ndarray)
    assert result.labels_on_device is None
    segmenter.predict(file)
    before = dict(gpu.cuda.counts)
    assert before["copy 1"] - uploads < 30  # Tables and words only.
    assert result.orig_shape == (97, 131)
    assert dict(gpu.cuda.counts) == before
    image = result.image
    assert gpu.cuda.counts["copy 2"] == before["copy 2"] + 1
    np.testing.assert_array_equal(image, load_image(file))
    assert result.image is image


@pytest.mark.usefixtures("codec")
def test_the_picture_is_there_after_close_and_all_memory_is_freed(gpu, frames):
    segmenter, file = gpu.load(), turned(frames[1], 6)
    results = [segmenter.predict(file) for _ in range(3)]
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        segmenter.predict(file)
    for result in results[:2]:
        np.testing.assert_array_equal(result.image, load_image(file))
    del result, results, segmenter
    gc.collect()
    gpu.cuda.finish()
    assert gpu.cuda.memory == {}
    assert len(gpu.cuda.streams) == 2  # The default one, and that of the engine, which stays.


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("mode CMYK", lambda frame: jpeg(Image.fromarray(frame).convert("CMYK"))),
        ("not YCbCr", lambda frame: jpeg(frame, keep_rgb=True)),
        ("profile other than sRGB", lambda frame: jpeg(frame, icc_profile=_swapped())),
        ("profile other than sRGB", lambda frame: jpeg(frame, icc_profile=b"damaged")),
        ("something follows", lambda frame: jpeg(frame) + b"more"),
        ("something follows", lambda frame: jpeg(frame)[:-1] + bytes(1 << 21) + b"\xff\xd9"),
        ("format MPO", lambda frame: _several(frame)),
    ],
)
def test_files_that_only_pillow_reads_right(gpu, frames, codec, caplog, reason, make):
    segmenter, file = gpu.load(), make(frames[1])
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            same(segmenter, file)
    assert codec.decoded == 1  # The sample.
    assert caplog.text.count(reason) == 1


def _swapped() -> bytes:
    """The profile of a display whose red and green are swapped, as far as it is not sRGB."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    content = content.replace(b"rXYZ", b"tXYZ").replace(b"gXYZ", b"rXYZ").replace(b"tXYZ", b"gXYZ")
    return bytes(content)


def _several(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(frame)
    image.save(stream, "MPO", save_all=True, append_images=[image])
    return stream.getvalue()


def test_files_that_cannot_be_read(gpu, cpu, frames, codec, tmp_path, monkeypatch):
    segmenter, whole = gpu.load(), jpeg(frames[1])
    for file in (whole[:300], whole[: len(whole) // 2], b"\xff\xd8\xff\xe0", tmp_path / "none.jpg", tmp_path):
        with pytest.raises(ImageError) as expected:
            cpu.predict(file)
        with pytest.raises(ImageError) as found:
            segmenter.predict(file)
        assert str(found.value) == str(expected.value)
    with pytest.raises(ImageError, match="channel_order is 'grb'"):
        segmenter.predict(whole, channel_order="grb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="too many pixels"):
        segmenter.predict(whole)
    assert codec.decoded <= 1  # At most the sample.


def test_what_the_decoder_refuses_is_decoded_by_pillow_and_said_once(gpu, frames, codec, caplog):
    segmenter, file = gpu.load(), jpeg(frames[1])
    segmenter.predict(file)
    codec.fails = True
    for _ in range(2):
        same(segmenter, file)
    assert caplog.text.count("nvImageCodec 0.9.0 cannot decode a JPEG file of 131×97 pixels") == 1
    codec.fails = False
    room, gpu.cuda.room = gpu.cuda.room, 1
    with pytest.raises(BackendError, match="out of memory"):  # Of the engine: Pillow decoded it.
        segmenter.predict(jpeg(frames[1].repeat(2, axis=0)))
    gpu.cuda.room = room
    same(segmenter, file)


def test_without_the_package_or_its_libraries_pillow_decodes(gpu, frames, caplog):
    file = jpeg(frames[1])
    with caplog.at_level(logging.INFO):
        for module in (None, HostNvimgcodec(gpu.cuda)):
            if module is not None:
                module.fails = True
            with installed("nvidia.nvimgcodec", module):
                segmenter = gpu.load()
                for _ in range(2):
                    same(segmenter, file)
                assert "JPEG" not in segmenter.engine_description
    said = [record for record in caplog.records if "decoded by Pillow" in record.getMessage()]
    assert [record.levelname for record in said] == ["INFO", "WARNING"]
    assert 'pip install "pixelclip-sdk[nvcodec]"' in said[0].getMessage()
    assert "Is nvJPEG there" in said[1].getMessage()


@pytest.mark.usefixtures("codec")
def test_batches_and_settings_that_need_the_host(gpu, frames):
    segmenter = gpu.load()
    files = [jpeg(frames[1]), frames[2], turned(frames[3], 8), jpeg(frames[5], keep_rgb=True)]
    pixels = [load_image(file) for file in files]
    for found, expected in zip(segmenter.predict_batch(files), segmenter.predict_batch(pixels), strict=True):
        check(found, expected)
    for settings in ({"min_confidence": 0.3}, {"tiles": 4}):
        same(segmenter, files[2], **settings)


def test_a_folder_as_a_stream(gpu, frames, codec, tmp_path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(turned(frames[1 + i % 2], 1 + i))
    Image.fromarray(frames[0]).save(tmp_path / "4.png")
    segmenter = gpu.load()
    for result, file in zip(segmenter.stream(tmp_path), sorted(tmp_path.iterdir()), strict=True):
        check(result, segmenter.predict(load_image(file)))
    assert codec.decoded == 5  # With the sample.


def test_threads_have_decoders_of_their_own(gpu, cpu, frames, codec):
    segmenter = gpu.load()
    files = [jpeg(frames[i]) for i in (1, 3, 5)] * 4
    expected = [cpu.predict(file).labels for file in files[:3]] * 4
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(segmenter.predict, files), expected, strict=True):
            np.testing.assert_array_equal(found.labels, wanted)
    assert 1 <= codec.decoders <= 4


def test_the_head_of_a_file(frames, tmp_path):
    file = turned(frames[1], 5)
    assert read_jpeg(file) == read_jpeg(bytearray(file)) == Jpeg(file, (97, 131), 5)
    Image.fromarray(frames[1]).save(tmp_path / "named.jpg", "PNG")
    for other in (
        tmp_path / "named.jpg",
        frames[1],
        Image.fromarray(frames[1]),
        b"",
        "https://example.com/a.jpg",
    ):
        assert read_jpeg(other) is None


@pytest.mark.gpu
def test_on_a_real_gpu(photo):
    """Pixels and labels are close to Pillow's. How close is for the first GPU to say."""
    try:
        segmenter = Segmenter.from_pretrained("pixelclip-lite", backend="onnx-cuda", classes=["cat", "sofa"])
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    big = np.asarray(Image.fromarray(photo).resize((1920, 1080)))
    with segmenter:
        segmenter.predict(jpeg(photo))
        if "nvImageCodec" not in segmenter.engine_description:
            pytest.skip('it decodes with Pillow; pip install "pixelclip-sdk[cuda,nvcodec]"')
        for picture in (photo, big):
            grey = Image.fromarray(picture).convert("L")
            for file in (
                jpeg(picture, quality=90),
                jpeg(picture, subsampling=0),
                jpeg(picture, progressive=True),
                jpeg(grey),
                *(turned(picture, orientation) for orientation in range(2, 9)),
            ):
                found, pixels = segmenter.predict(file), load_image(file)
                difference = np.abs(found.image.astype(int) - pixels)
                assert difference.mean() < 1, difference.max()
                assert (found.labels == segmenter.predict(pixels).labels).mean() > 0.98
        files = [turned(big, i % 8 + 1) for i in range(16)]
        alone = [segmenter.predict(file).labels for file in files]
        with ThreadPoolExecutor(8) as pool:
            for labels, result in zip(alone, pool.map(segmenter.predict, files), strict=True):
                np.testing.assert_array_equal(result.labels, labels)
        damaged = bytearray(files[0])
        damaged[len(damaged) // 2 : len(damaged) // 2 + 2000] = bytes(2000)
        assert segmenter.predict(bytes(damaged)).labels.shape == (1080, 1920)
        with pytest.raises(ImageError):
            segmenter.predict(files[0][: len(files[0]) // 2])
