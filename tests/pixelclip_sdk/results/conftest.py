"""Label maps and masks of all kinds, and the readers of other tools."""

import importlib
import warnings

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import Segmentation


def _smooth(seed: int, size: tuple[int, int], classes: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((classes, 5, 7)).astype(np.float32)
    maps = [
        np.asarray(Image.fromarray(layer).resize(size[::-1], Image.Resampling.BICUBIC)) for layer in noise
    ]
    return np.argmax(maps, axis=0).astype(np.uint8)


def _spiral(size: int) -> np.ndarray:
    """A path of one pixel's width from the corner to the middle: one component with a long chain of rows."""
    picture = np.zeros((size, size), np.uint8)
    picture[0] = 1
    y, x, dy, dx = 0, size - 1, 1, 0
    for length in [n for n in range(size - 1, 0, -2) for _ in (0, 1)]:
        for _ in range(length):
            y, x = y + dy, x + dx
            picture[y, x] = 1
        dy, dx = dx, -dy
    return picture


def _comb(size: int) -> np.ndarray:
    """Teeth that meet only in the last row."""
    picture = np.zeros((size, 2 * size + 1), np.uint8)
    picture[:, ::2] = picture[-1] = 1
    return picture


MAPS = {
    "one pixel": np.zeros((1, 1), np.uint8),
    "row": np.array([[1, 1, 0, 2, 2, 2]], np.uint8),
    "column": np.array([[1], [1], [0]], np.uint8),
    "checkerboard": (np.indices((6, 9)).sum(axis=0) % 2).astype(np.uint8),
    "ring": np.pad(np.pad(np.ones((1, 2), np.uint8), 2), 1, constant_values=1),
    "saddle": np.array([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], np.uint8),
    "spiral": _spiral(21),
    "comb": _comb(12),
    "comb upside down": _comb(12)[::-1].copy(),
    "smooth": _smooth(0, (60, 80), 4),
    "smooth wide": _smooth(1, (37, 151), 12).astype(np.uint16),
    **{f"noise {k}": np.random.default_rng(k).integers(0, k, (23, 31)).astype(np.uint8) for k in (2, 3, 9)},
}


@pytest.fixture(params=MAPS.values(), ids=MAPS.keys())
def labels(request) -> np.ndarray:
    """A label map."""
    return request.param


@pytest.fixture
def make_result():
    """Makes a result from labels; the classes are named a, b, c, …"""

    def make(labels: np.ndarray, names: list[str] | None = None) -> Segmentation:
        names = names or [chr(ord("a") + i) for i in range(12)]
        labels = labels.astype(np.uint8 if len(names) <= 255 else np.uint16)
        down, across = (np.arange(n, dtype=np.uint8) for n in labels.shape)
        image = np.add.outer(down, across)[..., None].repeat(3, axis=2)
        logits = np.zeros((len(names), 1, 1), np.float32)
        return Segmentation(labels=labels, logits=logits, names=names, image=image, speed={"total": 1.0})

    return make


@pytest.fixture(scope="session")
def supervision():
    """The package; it warns where OpenCV is missing."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return importlib.import_module("supervision")
        except ImportError:
            pytest.skip("supervision is not installed")
