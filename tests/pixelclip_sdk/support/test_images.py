"""Image files are opened with a list of formats, wherever they come from."""

import os

import pytest
from PIL import Image

from pixelclip_sdk import ImageError
from pixelclip_sdk.preprocess import load_image
from pixelclip_sdk.support.images import IMAGE_FORMATS, image_suffixes, orientation
from pixelclip_sdk.video.sources import open_source

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


def test_an_orientation_out_of_range_is_upright():
    image = Image.new("RGB", (4, 2))
    image.getexif()[0x0112] = 11
    assert orientation(image) == 1
