"""16-bit files that use all their bits, and those that do not."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pixelclip_sdk.image import load_image

RAMP = np.array([[0, 1, 2, 3], [4, 5, 6, 7]]) / 7


def png(pixels: np.ndarray) -> bytes:
    """A 16-bit PNG, which Pillow cannot write: `(H, W)` greyscale, or `(H, W, 2…4)` LA, RGB or RGBA."""
    height, width = pixels.shape[:2]
    colour_type = {2: 0, 3: {2: 4, 3: 2, 4: 6}.get(pixels.shape[-1])}[pixels.ndim]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff(pixels: np.ndarray, **tags: int) -> bytes:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info[{"max_sample_value": 281, "photometric": 262}[name]] = value
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16)).save(buffer, "TIFF", tiffinfo=info)
    return buffer.getvalue()


def rgb_tiff(pixels: np.ndarray, order: str) -> bytes:
    """An uncompressed 16-bit RGB file, which Pillow cannot write. `order` is ``"<"`` or ``">"``."""
    height, width, _ = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    tags = [(256, width), (257, height), (259, 1), (262, 2), (277, 3), (278, height), (279, len(data))]
    bits = 8 + 2 + 12 * (len(tags) + 2) + 4
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags]
    entries += [
        struct.pack(f"{order}HHII", 258, 3, 3, bits),
        struct.pack(f"{order}HHII", 273, 4, 1, bits + 6),
    ]
    entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2]))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    folder = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return head + folder + struct.pack(f"{order}3H", 16, 16, 16) + data


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("write", [png, tiff])
def test_grey_files_are_scaled_by_the_bits_they_use(write, bits, caplog):
    values = (RAMP * (2**bits - 1)).astype(np.uint16)
    with caplog.at_level(logging.WARNING):
        found = load_image(write(values))[:, :, 0]
    np.testing.assert_array_equal(found, values >> (bits - 8))
    assert found.max() == 255
    assert f"none above {2**bits - 1}; it is read as an image of {bits} bits" in caplog.text


@pytest.mark.parametrize("write", [png, tiff])
def test_files_that_use_16_bits_give_no_warning(write, caplog):
    values = (RAMP * 65535).astype(np.uint16)
    np.testing.assert_array_equal(load_image(write(values))[:, :, 0], values >> 8)
    assert not load_image(write(np.zeros((2, 2), np.uint16))).any()
    assert not caplog.text


def test_the_largest_value_that_a_tiff_states_is_white(caplog):
    """A dark image of 12 bits: its largest value alone would suggest 10."""
    values = (RAMP * 1000).astype(np.uint16)
    np.testing.assert_array_equal(load_image(tiff(values, max_sample_value=4095))[:, :, 0], values >> 4)
    assert not caplog.text


def test_a_tiff_of_12_bits_a_sample_is_scaled(caplog):
    values = [0, 1, 2048, 4095]
    packed = bytes([0x00, 0x00, 0x01, 0x80, 0x0F, 0xFF])
    tags = [
        (256, 4),
        (257, 1),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 0),
        (277, 1),
        (278, 1),
        (279, len(packed)),
    ]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in tags)
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed
    with Image.open(io.BytesIO(file)) as image:
        assert list(np.asarray(image).ravel()) == values
    np.testing.assert_array_equal(load_image(file)[0, :, 0], [0, 0, 128, 255])
    assert not caplog.text


def test_a_16_bit_tiff_in_which_zero_is_white_is_inverted():
    values = (RAMP * 65535).astype(np.uint16)
    np.testing.assert_array_equal(load_image(tiff(values, photometric=0))[:, :, 0], 255 - (values >> 8))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize(
    "write",
    [png, lambda pixels: rgb_tiff(pixels, "<"), lambda pixels: rgb_tiff(pixels, ">")],
    ids=["png", "tiff-little", "tiff-big"],
)
def test_colour_files_are_scaled_by_the_bits_they_use(write, bits, caplog):
    values = np.random.default_rng(0).integers(0, 2**bits, (5, 7, 3)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    with caplog.at_level(logging.WARNING):
        found = load_image(write(values))
    np.testing.assert_array_equal(found, values >> (bits - 8))
    assert f"read as an image of {bits} bits" in caplog.text


def test_a_stated_white_of_16_bits_keeps_a_dark_file_dark(caplog):
    values = (RAMP * 4000).astype(np.uint16)
    found = load_image(tiff(values, max_sample_value=65535))[:, :, 0]
    np.testing.assert_array_equal(found, values >> 8)
    assert not caplog.text


def test_dark_files_that_pillow_reads_in_8_bits_only_give_a_warning(caplog):
    """16-bit greyscale with alpha, and PIL images."""
    colours = png(np.full((2, 2, 3), 4095, np.uint16))
    for source in (png(np.full((2, 2, 2), 4095, np.uint16)), Image.open(io.BytesIO(colours))):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            load_image(source)
        assert "Scale it to 8 bits first" in caplog.text


def test_the_alpha_of_a_12_bit_file_stays(caplog):
    values = np.full((2, 2, 4), 4095, np.uint16)
    values[:, :, :2] = 0
    values[0, :, 3], values[1, :, 3] = 65535, 0
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_image(png(values))[:, 0], [[0, 0, 255], [255, 255, 255]])
    assert "12 bits" in caplog.text


def test_files_of_16_bits_a_pixel_are_not_files_of_16_bits_a_channel(caplog):
    """A dark BMP file of 5, 6 and 5 bits."""
    header = struct.pack("<IiiHHIIiiII3I", 40, 2, -1, 1, 16, 3, 4, 0, 0, 0, 0, 0xF800, 0x07E0, 0x001F)
    pixels = struct.pack("<2H", 0b00001_000000_00000, 0b00000_000001_00001)
    file = struct.pack("<2sIHHI", b"BM", 14 + 52 + 4, 0, 0, 14 + 52) + header + pixels
    np.testing.assert_array_equal(load_image(file)[0], [[8, 0, 0], [0, 4, 8]])
    assert not caplog.text


@pytest.mark.parametrize("write", [png, lambda pixels: rgb_tiff(pixels, "<")])
def test_colour_files_that_use_16_bits_give_no_warning(write, caplog):
    values = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    np.testing.assert_array_equal(load_image(write(values)), values >> 8)
    assert not caplog.text
