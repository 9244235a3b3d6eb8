"""Contours: the rule by which a polygon is the mask, with the rasterisers that other tools use."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pixelclip_sdk.results.contours import contours, one_polygon, straightened


def masks(labels: np.ndarray, make_result) -> list[np.ndarray]:
    """The regions of a map, without the margin around them."""
    found = []
    for region in make_result(labels).regions(min_area=0):
        x0, y0, x1, y1 = region.box
        found.append(region.mask()[y0:y1, x0:x1])
    return found


def filled(polygon: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.new("1", size[::-1])
    points = [tuple(point) for point in polygon.tolist()]
    ImageDraw.Draw(image).polygon(points + points[-1:] * (3 - len(points)), fill=1, outline=1)
    return np.array(image)


def test_the_single_polygon_filled_by_pillow_is_the_mask(labels, make_result):
    for mask in masks(labels, make_result):
        polygon = straightened(one_polygon(contours(mask), mask))
        np.testing.assert_array_equal(filled(polygon, mask.shape), mask)


def test_the_polygons_filled_by_opencv_are_the_mask(labels, make_result):
    cv2 = pytest.importorskip("cv2")
    for mask in masks(labels, make_result):
        chains = contours(mask)
        for polygons in (
            [straightened(chain) for chain in chains],
            [straightened(one_polygon(chains, mask))],
        ):
            canvas = np.zeros(mask.shape, np.uint8)
            cv2.fillPoly(canvas, polygons, 1)
            np.testing.assert_array_equal(canvas, mask)


def test_the_outer_border_minus_the_holes_is_the_mask(labels, make_result):
    """A hole is what its polygon encloses without the line."""
    for mask in masks(labels, make_result):
        outer, *holes = contours(mask)
        expected = filled(outer, mask.shape)
        for hole in holes:
            line = np.zeros(mask.shape, bool)
            line[hole[:, 1], hole[:, 0]] = True
            expected &= ~filled(hole, mask.shape) | line
        np.testing.assert_array_equal(expected, mask)


def test_a_ring_has_a_border_and_a_hole():
    ring = np.ones((3, 4), bool)
    ring[1, 1:3] = False
    outer, hole = (straightened(chain).tolist() for chain in contours(ring))
    assert outer == [[0, 0], [3, 0], [3, 2], [0, 2]]
    assert sorted(hole) == [[0, 1], [1, 0], [1, 2], [2, 0], [2, 2], [3, 1]]


def test_corners_only():
    assert straightened(contours(np.ones((200, 300), bool))[0]).tolist() == [
        [0, 0],
        [299, 0],
        [299, 199],
        [0, 199],
    ]
    assert straightened(contours(np.ones((1, 5), bool))[0]).tolist() == [[0, 0], [4, 0]]
    assert straightened(contours(np.ones((1, 1), bool))[0]).tolist() == [[0, 0]]
