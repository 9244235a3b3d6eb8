"""COCO's run lengths."""

import numpy as np
import pytest

from pixelclip_sdk.results import rle


def naive(mask: np.ndarray) -> list[int]:
    counts, last = [0], False
    for pixel in mask.ravel(order="F").tolist():
        if pixel != last:
            counts.append(0)
            last = pixel
        counts[-1] += 1
    return counts


def test_counts_are_the_runs_down_the_columns(labels, make_result):
    for region in make_result(labels).regions(min_area=0):
        assert region.rle(compressed=False) == {"size": list(labels.shape), "counts": naive(region.mask())}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_counts_and_text_are_those_of_pycocotools(labels, make_result):
    coco = pytest.importorskip("pycocotools.mask")
    for region in make_result(labels).regions(min_area=0):
        encoded = coco.encode(np.asfortranarray(region.mask().view(np.uint8)))
        assert region.rle() == {"size": encoded["size"], "counts": encoded["counts"].decode()}
        from_counts = coco.frPyObjects(region.rle(compressed=False), *labels.shape)
        np.testing.assert_array_equal(coco.decode(from_counts), region.mask())


@pytest.mark.parametrize(
    ("counts", "text"),
    [  # Made by pycocotools 2.0.11.
        ([0, 6], "06"),
        ([5, 1], "51"),
        ([16, 40, 1000, 8294400], "`0X1Xo0hnSm7"),
        ([3, 2, 2, 2, 5, 1, 90000], "32203O[lg2"),
    ],
)
def test_text_of_counts(counts, text):
    assert rle.compressed(counts) == text
