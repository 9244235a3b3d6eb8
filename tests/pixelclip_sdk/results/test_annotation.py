"""Masks of annotation tools, read back by independent decoders."""

import numpy as np
import pytest

from pixelclip_sdk import Segmentation
from pixelclip_sdk.results.annotation import cvat_mask, cvat_polygon, fiftyone_mask, label_studio_rle


def segmented(labels: np.ndarray, names: tuple[str, ...] = ("a", "b", "c")) -> Segmentation:
    return Segmentation(
        labels=labels,
        logits=np.zeros((len(names), 1, 1), np.float32),
        names=names,
        image=np.zeros((*labels.shape, 3), np.uint8),
        speed={},
    )


def rle_unpacked(stream: list[int]) -> np.ndarray:
    """Decodes Label Studio's stream as the original code does (rle-pack of thi.ng/umbrella)."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    at = 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    values = np.zeros(read(32), np.uint8)
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    i = 0
    while i < len(values):
        same = read(1)
        stop = i + 1 + read(sizes[read(2)])
        if same:
            values[i:stop] = read(word)
        else:
            for j in range(i, stop):
                values[j] = read(word)
        i = stop
    assert len(bits) - at < 8
    return values


@pytest.mark.parametrize("seed", range(6))
def test_label_studio_reads_the_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 40), rng.integers(1, 50))) < rng.choice([0.05, 0.5, 0.95])
    values = rle_unpacked(label_studio_rle(mask)).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(values, np.broadcast_to(mask[..., None] * np.uint8(255), values.shape))


@pytest.mark.parametrize("value", [False, True])
def test_label_studio_reads_runs_longer_than_a_length(value):
    mask = np.full((300, 400), value)
    assert (rle_unpacked(label_studio_rle(mask)) == 255 * value).all()


def test_label_studio_has_the_same_decoder():
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    mask = np.random.default_rng(0).random((31, 47)) < 0.3
    values = brush.decode_rle(label_studio_rle(mask)).reshape(31, 47, 4)
    np.testing.assert_array_equal(values[..., 3] > 0, mask)


def test_a_mask_of_cvat_has_its_box_and_runs_from_a_run_of_zeros():
    labels = np.array([[9, 0, 0, 9], [0, 0, 9, 9], [9, 9, 9, 1]], np.uint8)
    labels[labels == 9] = 255
    zero, one = segmented(labels).regions()
    assert cvat_mask(zero) == [1, 4, 1, 0, 0, 2, 1]
    assert cvat_mask(one) == [0, 1, 3, 2, 3, 2]


def test_a_polygon_of_cvat_has_at_least_three_points():
    labels = np.full((3, 4), 255, np.uint8)
    labels[2, 3] = 1
    (region,) = segmented(labels).regions()
    assert cvat_polygon(region) == [3, 2, 3, 2, 3, 2]


@pytest.mark.parametrize(("count", "dtype"), [(3, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_fiftyone_gets_no_label_zero_but_for_unknown_pixels(count, dtype):
    names = tuple(f"word {i}" for i in range(count))
    unknown = np.iinfo(dtype).max
    mask, targets = fiftyone_mask(segmented(np.array([[0, count - 1, unknown]], dtype), names))
    assert mask.tolist() == [[1, count, 0]]
    assert mask.dtype == dtype
    assert targets == {i + 1: name for i, name in enumerate(names)}
