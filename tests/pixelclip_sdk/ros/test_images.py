"""Every encoding, with the real messages and their serialisation."""

import array
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import ImageError, PixelClipError
from pixelclip_sdk.image import to_array
from pixelclip_sdk.ros.images import decode_image

pytest.importorskip("rosbags")
from pixelclip_sdk.ros.typestore import typestore

NAME = "sensor_msgs/msg/Image"
RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)


def header():
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=5, nanosec=7)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def sent(encoding: str, rows: np.ndarray, *, width: int, padding: int = 0, big: bool = False):
    """A message that went through CDR. `rows` are the samples, `(H, N)`, of 8 or 16 bits."""
    raw = rows.astype(">u2" if big else "<u2").view(np.uint8) if rows.dtype == np.uint16 else rows
    padded = np.pad(raw, ((0, 0), (0, padding)), constant_values=77)
    message = typestore().types[NAME](
        header=header(),
        height=len(rows),
        width=width,
        encoding=encoding,
        is_bigendian=int(big),
        step=padded.shape[1],
        data=padded.ravel(),
    )
    return typestore().deserialize_cdr(typestore().serialize_cdr(message, NAME), NAME)


def decoded(message, rotate: int = 0) -> np.ndarray:
    return to_array(decode_image(message, rotate))


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("rgb8", [0, 1, 2]),
        ("bgr8", [2, 1, 0]),
        ("8UC3", [2, 1, 0]),
        ("rgba8", [0, 1, 2, 0]),
        ("bgra8", [2, 1, 0, 0]),
        ("8UC4", [2, 1, 0, 1]),
    ],
)
def test_colours_of_8_bits(encoding, channels, padding):
    message = sent(encoding, RGB[:, :, channels].reshape(4, -1), width=6, padding=padding)
    assert np.array_equal(decoded(message), RGB)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "channels"),
    [
        ("rgb16", [0, 1, 2]),
        ("bgr16", [2, 1, 0]),
        ("rgba16", [0, 1, 2, 0]),
        ("bgra16", [2, 1, 0, 0]),
    ],
)
def test_colours_of_16_bits(encoding, channels, big):
    rows = RGB[:, :, channels].reshape(4, -1).astype(np.uint16) * 256 + 99
    assert np.array_equal(decoded(sent(encoding, rows, width=6, padding=2, big=big)), RGB)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey(encoding):
    grey = RGB[:, :, 0]
    assert np.array_equal(decoded(sent(encoding, grey, width=6, padding=1)), grey[:, :, None].repeat(3, 2))


@pytest.mark.parametrize("big", [False, True])
def test_grey_of_16_bits(big):
    grey = RGB[:, :, 0].astype(np.uint16) * 256 + 3
    assert np.array_equal(decoded(sent("mono16", grey, width=6, big=big))[:, :, 1], RGB[:, :, 0])


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_yuv(encoding):
    """BT.601 of the limited range, by its formula: 16 is black, 235 white; one colour for two pixels."""
    luma = np.array([[16, 235, 100, 180], [50, 60, 200, 128]])
    blue, red = np.array([[128, 90], [200, 140]]), np.array([[128, 170], [60, 110]])
    pairs = luma.reshape(2, 2, 2)
    order = [pairs[:, :, 0], blue, pairs[:, :, 1], red]
    if encoding in ("yuv422", "uyvy"):
        order = [blue, pairs[:, :, 0], red, pairs[:, :, 1]]
    message = sent(encoding, np.stack(order, 2).reshape(2, 8).astype(np.uint8), width=4, padding=4)
    y, u, v = 1.164 * (luma - 16), blue.repeat(2, 1) - 128, red.repeat(2, 1) - 128
    expected = np.stack([y + 1.596 * v, y - 0.392 * u - 0.813 * v, y + 2.017 * u], 2).clip(0, 255)
    assert np.abs(decoded(message) - expected).max() < 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer(order, bits):
    """A grey wall with a red half: the colours come back, also those of each pixel away from the border."""
    scene = np.full((8, 16, 3), 120, np.uint8)
    scene[:, 8:] = (200, 30, 60)
    mosaic = np.zeros((8, 16), np.uint8)
    for i, colour in enumerate(order):
        mosaic[i // 2 :: 2, i % 2 :: 2] = scene[i // 2 :: 2, i % 2 :: 2, "rgb".index(colour)]
    rows = mosaic if bits == 8 else mosaic.astype(np.uint16) * 256
    picture = decoded(sent(f"bayer_{order}{bits}", rows, width=16))
    assert np.array_equal(picture[:, :6], scene[:, :6])
    assert np.array_equal(picture[:, 10:], scene[:, 10:])


@pytest.mark.parametrize(("rotate", "turns"), [(0, 0), (90, 3), (180, 2), (270, 1)])
def test_rotated_cameras(rotate, turns):
    """numpy turns counter-clockwise: three of its turns are one clockwise."""
    message = sent("rgb8", RGB.reshape(4, -1), width=6)
    assert np.array_equal(decoded(message, rotate), np.rot90(RGB, turns))
    with pytest.raises(PixelClipError, match="rotate is 45; expected 0, 90, 180 or 270"):
        decode_image(message, 45)


@pytest.mark.parametrize("wrap", [bytes, lambda data: array.array("B", data), bytearray])
def test_data_of_rclpy_and_plain_bytes(wrap):
    message = SimpleNamespace(
        encoding="rgb8", height=4, width=6, step=18, is_bigendian=0, data=wrap(RGB.tobytes())
    )
    assert np.array_equal(decoded(message), RGB)


@pytest.mark.parametrize(
    ("kind", "text"), [("PNG", "png"), ("JPEG", "jpeg"), ("JPEG", "rgb8; jpeg compressed bgr8")]
)
def test_compressed(kind, text):
    name = "sensor_msgs/msg/CompressedImage"
    file = io.BytesIO()
    Image.new("RGB", (8, 4), (10, 200, 90)).save(file, kind)
    data = np.frombuffer(file.getvalue(), np.uint8)
    message = typestore().types[name](header=header(), format=text, data=data)
    message = typestore().deserialize_cdr(typestore().serialize_cdr(message, name), name)
    assert np.abs(decoded(message, 90).astype(int) - (10, 200, 90)).max() < 3
    assert decoded(message, 90).shape == (8, 4, 3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"encoding": "32FC1"}, "'32FC1'; expected one of rgb8, .* It is depth, not a picture"),
        ({"encoding": "yuv444"}, "'yuv444'; expected one of .*yuyv"),
        ({"step": 17}, "rows of 17 bytes and 72 bytes in all; expected rows of at least 18 bytes, and 72"),
        ({"data": bytes(71)}, "71 bytes in all; expected rows of at least 18 bytes, and 72"),
        ({"width": 0}, "0×4 pixels; expected at least 1×1"),
        ({"encoding": "yuyv", "width": 5}, "5 pixels wide; expected an even number"),
        ({"encoding": "bayer_rggb8", "width": 5}, "5×4 pixels; expected even numbers"),
    ],
)
def test_bad_images_say_what_was_expected(changes, problem):
    fields = {"encoding": "rgb8", "height": 4, "width": 6, "step": 18, "is_bigendian": 0, "data": bytes(72)}
    with pytest.raises(ImageError, match=problem):
        decode_image(SimpleNamespace(**fields | changes))


@pytest.mark.parametrize(
    ("text", "data", "problem"),
    [
        ("jpeg", b"\xff\xd8\xff damaged", "of the format 'jpeg': .*not an image"),
        ("16UC1; compressedDepth png", b"", "depth, not a picture"),
    ],
)
def test_bad_compressed_images(text, data, problem):
    with pytest.raises(ImageError, match=problem):
        decode_image(SimpleNamespace(format=text, data=data))
