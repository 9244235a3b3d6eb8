"""Images with ICC profiles."""

import io
import logging
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from pixelclip_sdk.image import load_image

# Colourants of Display P3 as in Apple's profile, adapted to D50 (rows: X, Y, Z of red, green and blue).
P3 = np.array([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])
SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])


def profile(colourants: np.ndarray | None, gamma: float = 2.2) -> bytes:
    """A display profile of RGB with a gamma curve; of greyscale without colourants."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    if colourants is None:
        tags[b"kTRC"] = curve
    else:
        for name, row in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colourants, strict=True):
            tags[name] = b"XYZ " + bytes(4) + fixed(*row)
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    table, data, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    space = b"GRAY" if colourants is None else b"RGB "
    head = struct.pack(">I4sI4s4s4s", start + len(data), bytes(4), 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def saved(image: Image.Image, icc: bytes, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, icc_profile=icc)
    return buffer.getvalue()


def to_srgb(p3: np.ndarray) -> np.ndarray:
    """The definition of the conversion: linear light, XYZ, linear sRGB, its transfer function."""
    linear = np.clip((p3 / 255) ** 2.2 @ P3 @ np.linalg.inv(SRGB), 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded * 255


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_display_p3_is_converted(kind):
    pixels = np.random.default_rng(0).integers(60, 200, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    options = {"lossless": True} if kind == "WEBP" else {}
    buffer = io.BytesIO()
    image.save(buffer, kind, icc_profile=profile(P3), **options)
    expected = to_srgb(pixels)
    assert np.abs(expected - pixels).max() > 10
    assert np.abs(load_image(buffer.getvalue()) - expected).max() < 2.5
    with Image.open(io.BytesIO(buffer.getvalue())) as opened:
        np.testing.assert_array_equal(load_image(opened), load_image(buffer.getvalue()))


def test_images_with_a_palette_or_alpha_are_converted_too():
    pixels = np.zeros((4, 4, 3), np.uint8) + np.array([180, 60, 90], np.uint8)
    expected = to_srgb(pixels)
    image = Image.fromarray(pixels)
    for variant in (image.convert("RGBA"), image.convert("P", palette=Image.Palette.ADAPTIVE)):
        assert np.abs(load_image(saved(variant, profile(P3))) - expected).max() < 2.5


def test_a_grey_profile_is_converted():
    ramp = np.arange(0, 256, 17, dtype=np.uint8)[None]
    found = load_image(saved(Image.fromarray(ramp), profile(None, gamma=1.0)))
    linear = ramp / 255
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert np.abs(found[:, :, 0] - expected).max() < 2.5
    assert (found == found[:, :, :1]).all()


def test_srgb_pixels_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(load_image(saved(Image.fromarray(pixels), icc)), pixels)


@pytest.mark.parametrize("icc", [b"no profile", profile(P3)[:200], bytes(128)])
def test_a_damaged_profile_is_ignored_with_a_warning(icc, caplog):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(load_image(saved(Image.fromarray(pixels), icc)), pixels)
    assert "colour profile that cannot be used" in caplog.text


def test_a_profile_for_other_images_is_ignored():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    file = saved(Image.fromarray(pixels), profile(None, gamma=1.0))  # A grey profile in a colour image.
    np.testing.assert_array_equal(load_image(file), pixels)
    cmyk = Image.new("CMYK", (4, 4), (10, 200, 30, 5))
    np.testing.assert_array_equal(
        load_image(saved(cmyk, profile(P3), "TIFF")), np.asarray(cmyk.convert("RGB"))
    )
