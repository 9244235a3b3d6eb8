"""Image files are opened with a list of formats, wherever they come from."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import pytest
from PIL import Image

from pixelclip_sdk import ImageError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support import images
from pixelclip_sdk.support.images import (
    IMAGE_FORMATS,
    find_images,
    ignore_warnings,
    image_suffixes,
    most_pixels,
    open_image_file,
    orientation,
)
from pixelclip_sdk.video.sources import open_source

Image.init()  # Until then Pillow knows few formats.
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n8 8 scale showpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A `gs` on PATH that leaves a mark when it is started."""
    mark, folder = tmp_path / "started", tmp_path / "bin"
    folder.mkdir()
    program = folder / "gs"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return mark


@pytest.mark.parametrize("name", ["photo.jpg", "photo.eps"])
def test_postscript_starts_no_program(name, tmp_path, ghostscript):
    file = tmp_path / name
    file.write_bytes(EPS)
    for source in (file, EPS):
        with pytest.raises(ImageError, match="is not an image; expected one of AVIF, BMP"):
            load_image(source)
    assert not ghostscript.exists()


def test_postscript_in_a_folder_starts_no_program(tmp_path, ghostscript):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(EPS)
    (folder / "c.eps").write_bytes(EPS)
    source = open_source(folder)
    assert source.count == 2  # a .eps file is no image file
    frames = iter(source)
    next(frames)
    with pytest.raises(ImageError, match="is not an image"):
        next(frames)
    assert not ghostscript.exists()


@pytest.mark.parametrize("format", IMAGE_FORMATS)
def test_every_format_in_the_list_is_read(format, tmp_path):
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {format}")
    file = tmp_path / "picture.bin"
    Image.new("RGB", (16, 16), (200, 30, 30)).save(file, format)
    assert load_image(file).shape == (16, 16, 3)


def test_suffixes_are_those_of_the_formats():
    assert {".jpg", ".jpeg", ".png", ".webp", ".tiff", ".bmp"} <= image_suffixes()
    assert not {".eps", ".ps", ".mpg", ".pdf", ".wmf"} & image_suffixes()


@pytest.mark.parametrize("recursive", [False, True])
def test_a_folder_that_does_not_exist(tmp_path, recursive):
    with pytest.raises(ImageError, match=r"the folder .*nowhere does not exist"):
        find_images(tmp_path / "nowhere", recursive=recursive)


def test_an_orientation_out_of_range_is_upright():
    image = Image.new("RGB", (4, 2))
    image.getexif()[0x0112] = 11
    assert orientation(image) == 1


def test_warnings_are_ignored_in_this_thread_only():
    seen = []

    def other():
        try:
            warnings.warn("from another thread", UserWarning, stacklevel=1)
        except UserWarning as error:
            seen.append(str(error))

    with ignore_warnings():
        warnings.warn("from this thread", UserWarning, stacklevel=1)
        with ignore_warnings():
            pass
        warnings.warn("after an inner block", UserWarning, stacklevel=1)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen == ["from another thread"]
    with pytest.raises(UserWarning, match="after the block"):
        warnings.warn("after the block", UserWarning, stacklevel=1)


def test_no_warning_of_pillow_reaches_the_program(tmp_path):
    """Under -W error, a warning would end the program."""
    huge, exif = tmp_path / "huge.png", tmp_path / "exif.jpg"
    Image.new("1", (10_000, 9_000)).save(huge)
    Image.new("RGB", (8, 8)).save(exif, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    code = (
        "import sys\n"
        "from pixelclip_sdk.image import load_image\n"
        "print([load_image(file).shape for file in sys.argv[1:]])\n"
        "from PIL import Image\n"
        "try:\n"
        "    Image.open(sys.argv[1])\n"
        "except Image.DecompressionBombWarning:\n"
        "    print('Pillow warns')\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(huge), str(exif)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[(9000, 10000, 3), (8, 8, 3)]\nPillow warns\n"
    assert not result.stderr


def opened(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return open_image_file(file)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("mode", "format", "options", "millions"),
    [
        ("RGB", "JPEG", {}, 102),
        ("L", "PNG", {}, 102),
        ("RGB", "TIFF", {}, 102),
        ("RGB", "JPEG", {"exif": turned()}, 81),
        ("CMYK", "JPEG", {}, 81),
        ("RGBA", "PNG", {}, 81),
        ("RGB", "JPEG", {"progressive": True}, 65),
        ("RGB", "AVIF", {}, 54),
        ("RGB", "WEBP", {}, 39),
        ("RGB", "JPEG2000", {}, 27),
    ],
)
def test_how_large_a_picture_may_be_follows_from_the_memory_that_it_needs(mode, format, options, millions):
    if format not in Image.SAVE:
        pytest.skip(f"this Pillow cannot write {format}")
    with opened(Image.new(mode, (16, 16)), format, **options) as image:
        assert most_pixels(image) // 10**6 == millions


def test_a_png_file_that_turns_out_to_be_turned_after_its_pixels_is_refused(monkeypatch):
    """The chunk eXIf may come at the end of the file."""
    file = io.BytesIO()
    Image.new("L", (16, 16)).save(file, "PNG")
    content = b"eXIf" + turned().tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    data = file.getvalue()
    end = data.index(b"IEND") - 4
    file = data[:end] + chunk + data[end:]
    assert load_image(file).shape == (16, 16, 3)
    with open_image_file(io.BytesIO(file)) as image:
        assert most_pixels(image) // 10**6 == 102
        assert "exif" not in image.info  # It was not decoded.
    monkeypatch.setattr("pixelclip_sdk.support.images._BUDGET", 256 * 7)
    with pytest.raises(ImageError, match="too many pixels"):
        load_image(file)


@pytest.mark.parametrize("format", ["JPEG", "MPO", "PNG", "TIFF", "WEBP", "AVIF"])
def test_a_turned_picture_that_is_large_for_its_kind_is_read(format, monkeypatch):
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(file, format, exif=exif)
    monkeypatch.setattr(images, "_BUDGET", 64 * 48 * max(images._BYTES.values()) - 1)
    assert load_image(file.getvalue()).shape == (64, 48, 3)


def test_a_jpeg_file_with_a_pass_for_each_colour_counts_as_progressive():
    """The decoder keeps all passes in memory, and Pillow does not say that there are several."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    data = file.getvalue()
    head = data.index(b"\xff\xda")
    one_colour = data[:head] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + data[head + 14 :]
    with open_image_file(io.BytesIO(one_colour)) as image:
        assert most_pixels(image) // 10**6 == 65


def png_head(width, height):
    file = io.BytesIO()
    Image.new("L", (1, 1)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(monkeypatch):
    with pytest.raises(ImageError, match=r"too many pixels: 11000×9400; expected at most 102 million"):
        load_image(png_head(11_000, 9_400))
    with pytest.raises(ImageError, match="cannot be read as an image"):  # It has no pixels.
        load_image(png_head(11_000, 9_200))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2 * Image.MAX_IMAGE_PIXELS)
    with pytest.raises(ImageError, match="cannot be read as an image"):
        load_image(png_head(11_000, 9_400))
