import contextlib
import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pixelclip_sdk import ImageError
from pixelclip_sdk.image import load_image, open_image, reduced

DAMAGED = Path(__file__).parent / "damaged"


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_path_bytes_a_picture_and_an_array_give_the_same(tmp_path, patches):
    picture = Image.fromarray(patches)
    path = tmp_path / "patches.png"
    picture.save(path)
    for source in (path, str(path), path.read_bytes(), picture, patches):
        np.testing.assert_array_equal(load_image(source), patches)


def test_bgr_arrays_become_rgb(patches):
    np.testing.assert_array_equal(load_image(patches[:, :, ::-1], "bgr"), patches)
    bgra = np.dstack([patches[:, :, ::-1], np.full((64, 64), 255, np.uint8)])
    np.testing.assert_array_equal(load_image(bgra, "bgr"), patches)


def test_greyscale_becomes_three_equal_channels():
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    expected = np.dstack([grey] * 3)
    for source in (grey, grey[:, :, None], Image.fromarray(grey), saved(Image.fromarray(grey))):
        np.testing.assert_array_equal(load_image(source), expected)


def test_sixteen_bit_greyscale_keeps_its_range():
    deep = np.array([[0, 256, 32768, 65535]], np.uint16)
    np.testing.assert_array_equal(load_image(saved(Image.fromarray(deep)))[0, :, 0], [0, 1, 128, 255])


def test_palette_and_one_bit_files_become_rgb(patches):
    palette = Image.fromarray(patches).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(load_image(saved(palette)), patches)
    np.testing.assert_array_equal(load_image(saved(Image.new("1", (2, 2), 1))), np.full((2, 2, 3), 255))


def test_transparency_is_blended_with_white():
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]
    for source in (rgba, Image.fromarray(rgba), saved(Image.fromarray(rgba))):
        np.testing.assert_array_equal(load_image(source), expected)


def as_bitmap(bgrx: np.ndarray) -> bytes:
    """A BMP file of 32 bits a pixel with an alpha mask."""
    height, width = bgrx.shape[:2]
    header = struct.pack("<IiiHHIIiiII", 56, width, -height, 1, 32, 3, 0, 0, 0, 0, 0)
    header += struct.pack("<4I", 0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
    return struct.pack("<2sIHHI", b"BM", 14 + 56 + bgrx.nbytes, 0, 0, 14 + 56) + header + bgrx.tobytes()


def test_a_fourth_channel_of_zeros_is_no_alpha(patches):
    """Screen captures are BGRX arrays with X = 0."""
    rgbx = np.dstack([patches, np.zeros((64, 64), np.uint8)])
    bgrx = np.ascontiguousarray(rgbx[:, :, [2, 1, 0, 3]])
    image = Image.fromarray(rgbx)
    np.testing.assert_array_equal(load_image(bgrx, "bgr"), patches)
    for source in (rgbx, image, saved(image), saved(image, "TGA"), as_bitmap(bgrx)):
        np.testing.assert_array_equal(load_image(source), patches)


def test_one_visible_pixel_makes_the_fourth_channel_alpha(patches):
    rgba = np.dstack([patches, np.zeros((64, 64), np.uint8)])
    rgba[63, 63, 3] = 255
    expected = np.full_like(patches, 255)
    expected[63, 63] = patches[63, 63]
    for source in (rgba, as_bitmap(np.ascontiguousarray(rgba[:, :, [2, 1, 0, 3]]))):
        np.testing.assert_array_equal(load_image(source), expected)


def test_alpha_is_blended_alike_in_all_strips():
    rgba = np.random.default_rng(0).integers(0, 256, (1200, 700, 4), dtype=np.uint8)
    alpha = rgba[:, :, 3:] / 255
    expected = rgba[:, :, :3] * alpha + 255 * (1 - alpha)
    assert np.abs(load_image(rgba) - expected).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(load_image(Image.fromarray(rgba)), load_image(rgba))


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha_is_read(mode):
    grey = Image.new("L", (2, 2), 100)
    straight = grey.convert("LA" if mode == "La" else "RGBA")
    np.testing.assert_array_equal(load_image(straight.convert(mode)), np.full((2, 2, 3), 100))


def test_exif_orientation_is_applied(patches):
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored turned; to be shown turned a quarter clockwise.
    wide = Image.fromarray(patches[:32])
    turned = load_image(saved(wide, "PNG", exif=exif))
    assert turned.shape == (64, 32, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_upright(patches, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(Image.fromarray(patches[:40]), "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))))
    np.testing.assert_array_equal(load_image(file), expected)


def test_the_orientation_of_an_image_that_was_turned_by_hand_is_ignored(patches):
    """Pillow keeps the EXIF data of an image that it turns (python-pillow/Pillow#4537)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    file = saved(Image.fromarray(patches[:40]), "PNG", exif=exif)
    upright = load_image(file)
    assert upright.shape == (64, 40, 3)
    np.testing.assert_array_equal(load_image(Image.open(io.BytesIO(file))), upright)
    by_hand = Image.open(io.BytesIO(file)).transpose(Image.Transpose.ROTATE_270)
    assert by_hand.getexif()[0x0112] == 6
    np.testing.assert_array_equal(load_image(by_hand), upright)
    np.testing.assert_array_equal(load_image(ImageOps.exif_transpose(Image.open(io.BytesIO(file)))), upright)
    converted = Image.open(io.BytesIO(file)).convert("RGB")
    np.testing.assert_array_equal(load_image(converted), np.asarray(converted))


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {"exif": b"Exif\0\0II*\0"}),
        ("PNG", {"exif": b"Exif\0\0MM"}),
        ("JPEG", {"exif": b"Exif\0\0junk", "dpi": (72, 72)}),
        ("JPEG", {"exif": b"Exif\0\0II+\0\x08\0\0\0"}),
    ],
)
def test_damaged_exif_is_ignored(patches, format, options):
    file = saved(Image.fromarray(patches), format, **options)
    np.testing.assert_array_equal(load_image(file), load_image(saved(Image.fromarray(patches), format)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX", "P", "RGBA"])
def test_other_modes_become_rgb(mode):
    image = load_image(Image.new("RGB", (5, 4), (51, 102, 204)).convert(mode))
    assert image.shape == (4, 5, 3)
    assert np.abs(image.astype(int) - [51, 102, 204]).max() <= 3


@pytest.mark.parametrize(("mode", "value"), [("L", 200), ("LA", 200), ("1", 255), ("1", 0)])
def test_grey_modes_become_rgb(mode, value):
    image = load_image(Image.new("L", (5, 4), value).convert(mode))
    np.testing.assert_array_equal(image, np.full((4, 5, 3), value))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.jpg", "does not exist"),
        ("QUJD" * 200, "does not exist, or cannot be reached"),
        (".", "is a folder"),
        (b"", "not an image"),
        (b"these bytes are a text", "not an image"),
        ("https://example.com/cat.jpg", "https://example.com/cat.jpg is a URL"),
        (Path("https://example.com/cat.jpg"), "is a URL"),
        (42, "expected a path"),
        (None, "expected a path"),
        (np.zeros((0, 4, 3), np.uint8), "empty array"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((3, 8, 8), np.uint8), "Channels come last"),
        (np.zeros((2, 8, 8, 3), np.uint8), "predict_batch"),
        (np.zeros(5, np.uint8), "shape"),
        (np.full((4, 4, 3), np.nan, np.float32), "float32; expected uint8"),
        (np.full((4, 4, 3), 65535, np.uint16), "image >> 8"),
        (np.full((4, 4, 3), 4095, np.uint16), "image >> 4).astype(np.uint8), if white is 4095"),
        (np.full((4, 4, 3), 1000, np.uint16), "image >> 2).astype(np.uint8), if white is 1023"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (Image.new("F", (3, 3)), "32 bits"),
        (Image.new("LAB", (3, 3)), "mode 'LAB'; expected RGB"),
        (Image.new("RGB", (0, 3)), "at least 1×1"),
    ],
)
def test_unusable_sources_are_refused(source, message):
    with pytest.raises(ImageError, match=re.escape(message)):
        load_image(source)


def test_messages_shorten_images_in_base64():
    with pytest.raises(ImageError) as error:
        load_image("QUJD" * 2000)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("largest", "scale"), [(65535, 256), (4095, 16)])
def test_pgm_files_of_more_than_8_bits_are_scaled(largest, scale):
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3) * (largest // 6)
    file = b"P5 3 2 %d\n" % largest + grey.astype(">u2").tobytes()
    found = load_image(file)[:, :, 0]
    assert np.abs(found.astype(int) - grey // scale).max() <= 1


def test_pil_images_of_damaged_or_closed_files_are_refused(photo):
    file = saved(Image.fromarray(photo), "JPEG")
    with pytest.raises(ImageError, match="a PIL image cannot be read"):
        load_image(Image.open(io.BytesIO(file[: len(file) // 2])))  # Pillow reads it when it is used.
    closed = Image.open(io.BytesIO(file))
    closed.close()
    with pytest.raises(ImageError, match="a PIL image cannot be read"):
        load_image(closed)


@pytest.mark.parametrize("file", sorted(DAMAGED.iterdir()), ids=lambda file: file.name)
def test_damaged_files_are_image_errors(file):
    """Files that made Pillow raise AttributeError, OverflowError or ZeroDivisionError."""
    for source in (file, file.read_bytes()):
        with pytest.raises(ImageError, match=r"not an image|cannot be read as an image"):
            load_image(source)


@pytest.mark.parametrize("kind", ["AVIF", "DDS"])
def test_damaged_files_of_other_formats_are_image_errors(kind, photo):
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    whole = saved(Image.fromarray(photo[:64, :64]), kind)
    refused = 0
    for place in range(0, len(whole), max(len(whole) // 60, 1)):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        try:
            load_image(bytes(broken))
        except ImageError:
            refused += 1
    assert refused


def test_a_wrong_channel_order_is_refused(patches):
    with pytest.raises(ImageError, match="rgb"):
        load_image(patches, "rgba")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_truncated_and_damaged_files_are_refused(kind, photo):
    whole = saved(Image.fromarray(photo), kind)
    with pytest.raises(ImageError):
        load_image(whole[: len(whole) // 2])


def test_damaged_files_give_an_image_or_an_image_error(photo):
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        whole = bytearray(saved(Image.fromarray(photo[:40, :40]), kind))
        for _ in range(60):
            damaged = bytearray(whole)
            for position in rng.integers(0, len(damaged), 8):
                damaged[position] = rng.integers(256)
            with contextlib.suppress(ImageError):
                assert load_image(bytes(damaged)).dtype == np.uint8


def test_an_image_within_twice_pillows_limit_is_read(monkeypatch):
    file = saved(Image.new("1", (1000, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)
    assert load_image(file).shape == (100, 1000, 3)


def test_a_decompression_bomb_is_refused(monkeypatch):
    file = saved(Image.new("1", (1000, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    with pytest.raises(ImageError, match=r"too many pixels.*100000.*Make it smaller first"):
        load_image(file)


def test_large_images_become_the_same_arrays():
    pixels = np.random.default_rng(0).integers(0, 256, (1300, 1000, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load_image(Image.fromarray(pixels)), pixels)
    np.testing.assert_array_equal(load_image(saved(Image.fromarray(pixels))), pixels)


def test_memory_of_a_large_palette_image_with_transparency(tmp_path):
    pytest.importorskip("resource")
    side = 5000
    image = Image.new("P", (side, side), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.info["transparency"] = bytes([0, 128])
    image.save(tmp_path / "large.png")
    code = (
        "import resource, sys\n"
        "from pixelclip_sdk.image import load_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "array = load_image(sys.argv[1])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *array[0, 0])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, *pixel = map(int, result.stdout.split())
    assert pixel == [127, 127, 255]
    unit = 1 if sys.platform == "darwin" else 1024
    assert peak * unit < (3 + 3) * side * side  # The result, and as much again.


def test_an_opened_pil_image_is_a_copy(patches):
    image = Image.fromarray(patches)
    assert open_image(image) is not image
    assert open_image(patches) is patches


def test_a_mask_is_refused_with_its_conversion():
    with pytest.raises(ImageError, match=r"Convert: image.astype\(np.uint8\) \* 255$"):
        load_image(np.zeros((2, 2), bool))


def test_a_video_is_refused_with_what_reads_it(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    with pytest.raises(ImageError, match=r"clip\.mp4 is a video; use `pixelclip video`"):
        load_image(tmp_path / "clip.mp4")


@pytest.mark.parametrize("factor", [(3, 2), (7, 5), (1, 4)])
def test_the_means_of_blocks_are_those_of_pillow(monkeypatch, factor):
    pixels = np.random.default_rng(0).integers(0, 256, (101, 97, 3), dtype=np.uint8)
    monkeypatch.setattr("pixelclip_sdk.image._STRIP_PIXELS", 12 * 97)
    expected = np.asarray(Image.fromarray(pixels).reduce(factor))
    np.testing.assert_array_equal(np.asarray(reduced(pixels, factor)), expected)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_picture_with_transparency_is_turned_as_one_without(turn):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    plain, clear = Image.fromarray(pixels), Image.fromarray(pixels)
    clear.putalpha(255)
    files = [io.BytesIO(), io.BytesIO()]
    for picture, file in zip((plain, clear), files, strict=True):
        picture.save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(files[1].getvalue()), load_image(files[0].getvalue()))


def test_a_damaged_jpeg_file_gives_one_line_and_not_one_for_each_tag():
    """5 000 damaged EXIF tags: Pillow warns about each."""
    file = io.BytesIO()
    tags = b"".join(struct.pack("<HHII", 0x9000 + i, 2, 10**6, 10**6) for i in range(5000))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5000) + tags
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif[:65_000])  # The longest that a JPEG file may have.
    code = "import sys; from pixelclip_sdk.image import load_image; load_image(sys.stdin.buffer.read())"
    command = [sys.executable, "-W", "always", "-c", code]
    result = subprocess.run(command, input=file.getvalue(), capture_output=True, check=True)
    assert result.stderr.count(b"\n") <= 1, result.stderr[:500]
