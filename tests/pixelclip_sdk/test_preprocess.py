import contextlib
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from pixelclip_sdk import ImageError
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.preprocess import (
    Draft,
    fit,
    input_size,
    load_image,
    open_draft,
    open_image,
    picture_size,
    scaled_size,
)

DYNAMIC = InputSpec(height=384, width=512, multiple=32, fixed=False, keep_aspect=True)
FIXED = InputSpec(height=320, width=320, multiple=16, fixed=True, keep_aspect=False)


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


def test_bgr_is_turned(patches):
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


def test_transparency_is_laid_over_white():
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]
    for source in (rgba, Image.fromarray(rgba), saved(Image.fromarray(rgba))):
        np.testing.assert_array_equal(load_image(source), expected)


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


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {"exif": b"Exif\0\0II*\0"}),
        ("PNG", {"exif": b"Exif\0\0MM"}),
        ("JPEG", {"exif": b"Exif\0\0junk", "dpi": (72, 72)}),
        ("JPEG", {"exif": b"Exif\0\0II+\0\x08\0\0\0"}),
    ],
)
def test_damaged_exif_costs_no_picture(patches, format, options):
    file = saved(Image.fromarray(patches), format, **options)
    np.testing.assert_array_equal(load_image(file), load_image(saved(Image.fromarray(patches), format)))


@pytest.mark.parametrize("mode", ["CMYK", "LA", "YCbCr", "HSV"])
def test_other_modes_become_rgb(mode):
    image = load_image(
        Image.new("RGB", (5, 4), (10, 20, 30)).convert("L" if mode == "LA" else "RGB").convert(mode)
    )
    assert image.shape == (4, 5, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere.jpg", "does not exist"),
        ("QUJD" * 200, "does not exist, or cannot be reached"),
        (".", "is a folder"),
        (b"", "not an image"),
        (b"these bytes are a text", "not an image"),
        (42, "expected a path"),
        (None, "expected a path"),
        (np.zeros((0, 4, 3), np.uint8), "empty array"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((3, 8, 8), np.uint8), "Channels come last"),
        (np.zeros((2, 8, 8, 3), np.uint8), "predict_batch"),
        (np.zeros(5, np.uint8), "shape"),
        (np.full((4, 4, 3), np.nan, np.float32), "float32; expected uint8"),
        (np.zeros((4, 4, 3), np.uint16), ">> 8"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (Image.new("F", (3, 3)), "32 bits"),
        (Image.new("RGB", (0, 3)), "at least 1×1"),
    ],
)
def test_what_cannot_be_used_is_refused(source, said):
    with pytest.raises(ImageError, match=said.replace("(", r"\(")):
        load_image(source)


def test_a_message_repeats_no_whole_picture_in_base64():
    with pytest.raises(ImageError) as error:
        load_image("QUJD" * 2000)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("largest", "scale"), [(65535, 256), (4095, 16)])
def test_pgm_files_of_more_than_8_bits_are_scaled(largest, scale):
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3) * (largest // 6)
    file = b"P5 3 2 %d\n" % largest + grey.astype(">u2").tobytes()
    found = load_image(file)[:, :, 0]
    assert np.abs(found.astype(int) - grey // scale).max() <= 1


def test_pil_images_whose_file_is_no_good_are_refused(photo):
    file = saved(Image.fromarray(photo), "JPEG")
    with pytest.raises(ImageError, match="a PIL image cannot be read"):
        load_image(Image.open(io.BytesIO(file[: len(file) // 2])))  # Pillow reads it when it is used.
    closed = Image.open(io.BytesIO(file))
    closed.close()
    with pytest.raises(ImageError, match="a PIL image cannot be read"):
        load_image(closed)


@pytest.mark.parametrize("kind", ["AVIF", "DDS"])
def test_damage_that_pillow_has_other_errors_for_is_an_image_error(kind, photo):
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


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_any_damage_gives_a_picture_or_an_image_error(photo):
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        whole = bytearray(saved(Image.fromarray(photo[:40, :40]), kind))
        for _ in range(60):
            damaged = bytearray(whole)
            for position in rng.integers(0, len(damaged), 8):
                damaged[position] = rng.integers(256)
            with contextlib.suppress(ImageError):
                assert load_image(bytes(damaged)).dtype == np.uint8


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("factor", [1.5, 4])
def test_a_decompression_bomb_is_refused(monkeypatch, factor):
    bomb = saved(Image.new("1", (1000, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(100_000 / factor))
    with pytest.raises(ImageError, match="MAX_IMAGE_PIXELS"):
        load_image(bomb)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        ((480, 640), (384, 512)),
        ((640, 480), (512, 384)),
        ((500, 500), (448, 448)),
        ((1080, 1920), (320, 576)),
    ],
)
def test_the_input_keeps_the_aspect_and_the_number_of_pixels(picture, expected):
    assert input_size(*picture, DYNAMIC) == expected


@pytest.mark.parametrize("picture", [(1, 1), (1, 20_000), (20_000, 1), (7, 5000)])
def test_extreme_aspects_stay_affordable(picture):
    height, width = input_size(*picture, DYNAMIC)
    assert height % 32 == width % 32 == 0
    assert 0.7 < height * width / (384 * 512) < 1.4


def test_a_fixed_input_is_squashed(photo):
    assert fit(photo, FIXED).shape == (320, 320, 3)
    assert fit(photo, DYNAMIC).dtype == np.uint8


def test_a_picture_of_the_right_size_is_not_copied():
    image = np.zeros((384, 512, 3), np.uint8)
    assert fit(image, DYNAMIC) is image


@pytest.mark.parametrize(
    ("size", "scaled"),
    [((480, 640), (336, 448)), ((720, 1280), (252, 448)), ((640, 480), (336, 252)), ((9000, 3), (336, 1))],
)
def test_a_fixed_size_that_keeps_the_aspect_is_padded(size, scaled):
    spec = InputSpec(height=336, width=448, multiple=16, fixed=True, keep_aspect=True)
    assert input_size(*size, spec) == (336, 448)
    assert scaled_size(*size, spec) == scaled
    image = np.full((*size, 3), 200, np.uint8)
    entered = fit(image, spec)
    assert entered.shape == (336, 448, 3)
    assert (entered[: scaled[0], : scaled[1]] == 200).all()
    padding = np.ones((336, 448), bool)
    padding[: scaled[0], : scaled[1]] = False
    assert (entered[padding] == (123, 117, 104)).all()


@pytest.mark.parametrize("size", [(30, 40), (384, 512), (700, 900), (1500, 2100)])
@pytest.mark.parametrize("spec", [DYNAMIC, FIXED])
def test_a_file_is_resized_where_it_was_decoded_with_the_same_pixels(photo, size, spec):
    picture = Image.fromarray(photo).resize(size[::-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (saved(picture, "JPEG"), saved(picture, "JPEG", exif=exif), saved(picture.convert("L"))):
        opened, array = open_image(data), load_image(data)
        assert isinstance(opened, Image.Image)
        assert picture_size(opened) == picture_size(array) == array.shape[:2]
        np.testing.assert_array_equal(fit(opened, spec), fit(array, spec))


def test_an_opened_picture_is_nobody_elses(patches):
    image = Image.fromarray(patches)
    assert open_image(image) is not image
    assert open_image(patches) is patches


SMALL = InputSpec(height=64, width=64, multiple=32, fixed=False, keep_aspect=True)


@pytest.mark.parametrize(
    ("size", "small"), [((256, 256), (128, 128)), ((1100, 600), (275, 150)), ((2048, 2048), (256, 256))]
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_draft_leaves_twice_the_input_and_is_nearly_the_picture(photo, tmp_path, size, small, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "large.jpg"
    Image.fromarray(photo).resize(size[::-1]).save(file, quality=90, exif=exif)
    draft = open_draft(file, SMALL)
    assert isinstance(draft, Draft)
    assert picture_size(draft) == picture_size(open_image(file))
    assert sorted(draft.small.size) == sorted(small)
    assert draft.small.mode == "RGB"
    found, expected = fit(draft, SMALL).astype(int), fit(open_image(file), SMALL)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 2


def test_a_draft_of_an_orientation_that_there_is_not_has_the_pictures_size(photo):
    exif = Image.Exif()
    exif[0x0112] = 9
    file = saved(Image.fromarray(photo).resize((600, 1100)), "JPEG", exif=exif)
    assert picture_size(open_draft(file, SMALL)) == picture_size(open_image(file)) == (1100, 600)


def test_a_draft_of_too_many_pixels_is_refused(photo, monkeypatch):
    file = saved(Image.fromarray(photo).resize((1100, 600)), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="more than 1000 pixels"):
        open_draft(file, SMALL)


def test_only_large_jpegs_become_drafts(photo, tmp_path):
    large, near = (Image.fromarray(photo).resize((side, side)) for side in (256, 255))
    for source in (saved(large), saved(near, "JPEG"), large, photo):
        assert not isinstance(open_draft(source, SMALL), Draft)
    assert isinstance(open_draft(saved(large.convert("L"), "JPEG"), SMALL), Draft)
    for broken in (b"no picture", saved(large, "JPEG")[:3000], tmp_path / "nowhere.jpg"):
        with pytest.raises(ImageError):
            open_draft(broken, SMALL)
