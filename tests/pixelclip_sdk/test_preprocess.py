import io

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.image import load_image, open_image, picture_size
from pixelclip_sdk.preprocess import fit, input_size, scaled_size

DYNAMIC = InputSpec(height=384, width=512, multiple=32, fixed=False, keep_aspect=True)
FIXED = InputSpec(height=320, width=320, multiple=16, fixed=True, keep_aspect=False)


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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
def test_a_decoded_file_and_its_array_are_resized_alike(photo, size, spec):
    picture = Image.fromarray(photo).resize(size[::-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (saved(picture, "JPEG"), saved(picture, "JPEG", exif=exif), saved(picture.convert("L"))):
        opened, array = open_image(data), load_image(data)
        assert isinstance(opened, Image.Image)
        assert picture_size(opened) == picture_size(array) == array.shape[:2]
        np.testing.assert_array_equal(fit(opened, spec), fit(array, spec))
