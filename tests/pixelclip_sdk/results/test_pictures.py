"""Parts of the image."""

import io

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import PixelClipError, VocabularyError

LABELS = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 2, 0, 0]], np.uint8)


@pytest.fixture
def result(make_result):
    return make_result(LABELS, ["a", "b", "c", "d"])


def test_a_crop_is_the_rectangle_around_a_class(result):
    np.testing.assert_array_equal(np.asarray(result.crop("c")), result.image[1:3, 1:3])
    np.testing.assert_array_equal(np.asarray(result.crop(1)), result.image[0:2, 2:4])
    assert result.crop("a").mode == "RGB"
    assert result.crop("a").size == (4, 3)


def test_a_cutout_is_transparent_elsewhere(result):
    cut = result.cutout("c")
    assert cut.mode == "RGBA"
    pixels = np.asarray(cut)
    np.testing.assert_array_equal(pixels[..., :3], result.image[1:3, 1:3])
    assert pixels[..., 3].tolist() == [[255, 255], [255, 0]]


def test_parts_of_a_region(result):
    larger, smaller = result.regions(min_area=0, classes="a")
    assert (larger.area, smaller.area) == (4, 2)
    assert result.crop(smaller).size == (2, 1)
    assert np.asarray(result.cutout(larger))[..., 3].tolist() == [[255, 255], [255, 0], [255, 0]]


def test_what_is_not_there_is_refused(result, make_result):
    with pytest.raises(PixelClipError, match="no pixel of this image is 'd'"):
        result.crop("d")
    with pytest.raises(VocabularyError, match="no class 'dog'"):
        result.cutout("dog")
    other = make_result(np.zeros((9, 9), np.uint8)).regions()[0]
    with pytest.raises(PixelClipError, match=r"of an image of \(9, 9\)"):
        result.crop(other)


def test_a_notebook_shows_the_overlay(result):
    with Image.open(io.BytesIO(result._repr_png_()), formats=["PNG"]) as shown:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(result.plot()))
