"""Label maps as PNG files."""

import io

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.serve.encode import grey_png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (31, 17), (480, 641)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_grey_png_has_exactly_the_values(shape, dtype):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    for array in (values, values[:, ::-1], np.asfortranarray(values)):  # Not contiguous, too.
        with Image.open(io.BytesIO(grey_png(array))) as image:
            assert (image.format, image.mode) == ("PNG", "L" if dtype == np.uint8 else "I;16")
            np.testing.assert_array_equal(np.asarray(image), array)


def test_a_label_map_takes_few_bytes():
    values = np.zeros((480, 640), np.uint8)
    values[100:300, 200:500] = 3
    assert len(grey_png(values)) < 4000
