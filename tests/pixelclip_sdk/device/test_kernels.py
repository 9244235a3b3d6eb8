"""The source of the GPU kernels, built for this machine's processor, against the CPU's path."""

import numpy as np
import pytest
from host_gpu.kernels import compiler, launch
from PIL import Image

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.device.kernels import Kernels, Pixels, Rows, Taps
from pixelclip_sdk.device.tables import Filter, Points, Resize, Upsample
from pixelclip_sdk.image import brightness, reduced
from pixelclip_sdk.postprocess import argmax_upsampled, covered_cells, label_dtype, unknown_label
from pixelclip_sdk.preprocess import fit

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")

KERNELS = Kernels(lambda name, grid, block, values, types, _: launch(name, grid, block, values, types))
GUARD = 64  # Bytes before and after an output, which must stay as they are.


def guarded(shape: tuple[int, ...], dtype) -> tuple[np.ndarray, np.ndarray]:
    """An output, and the memory that it is the middle of."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 2 * GUARD, 0xAB, np.uint8)
    return memory[GUARD : GUARD + size].view(dtype).reshape(shape), memory


def untouched(memory: np.ndarray) -> bool:
    return bool((memory[:GUARD] == 0xAB).all() and (memory[-GUARD:] == 0xAB).all())


def resize(frame: np.ndarray, how: InputSpec | Resize, pixels: Pixels | None = None) -> np.ndarray:
    """`(H, W, 3)` through the kernel; `pixels` says where another layout of it lies."""

    def taps(one: Filter) -> Taps:
        return Taps(*(part.ctypes.data for part in (one.start, one.count, one.weights)), one.weights.shape[1])

    table = how if isinstance(how, Resize) else Resize.of(frame.shape[:2], how)
    out, memory = guarded((*table.whole, 3), np.uint8)
    where = pixels or Pixels(frame.ctypes.data, *frame.strides[:2], (0, 1, 2))
    KERNELS.resize(where, table, taps(table.rows), taps(table.columns), out.ctypes.data, None)
    assert untouched(memory)
    return out


def vertical_first(frame: np.ndarray, spec: InputSpec) -> bool:
    """Whether Pillow from version 13 on filters columns first: where the height shrinks far more."""
    table = Resize.of(frame.shape[:2], spec)
    sizes = zip(frame.shape[:2], (table.rows.factor, table.columns.factor), table.scaled, strict=True)
    high, wide = (-(-pixels // factor) - wanted for pixels, factor, wanted in sizes)
    return high > 0 and high > 2 * wide


def test_resize_is_pillows():
    rng = np.random.default_rng(0)
    equal = 0
    shapes = [(1080, 1920), (1, 1), (2, 999), (999, 2), (320, 320), (33, 31)]
    for i in range(40):
        fixed = i % 3 > 0
        spec = InputSpec(
            height=int(rng.integers(1, 8)) * 32,
            width=int(rng.integers(1, 8)) * 32,
            multiple=32,
            fixed=fixed,
            keep_aspect=not fixed or i % 3 == 1,
        )
        size = shapes[i] if i < len(shapes) else tuple(rng.integers(1, 900, 2))
        frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        found, expected = resize(frame, spec), fit(frame, spec)
        assert found.shape == expected.shape
        if vertical_first(frame, spec):
            assert np.abs(found.astype(int) - expected).max() <= 1
        else:
            np.testing.assert_array_equal(found, expected)
            equal += 1
    assert equal > 20


def test_frames_of_every_layout():
    rng = np.random.default_rng(1)
    spec = InputSpec(height=64, width=96, multiple=32, fixed=True, keep_aspect=True)
    frame = rng.integers(0, 256, (131, 257, 3), dtype=np.uint8)
    expected = fit(frame, spec)
    pitched = np.zeros((131, 300, 3), np.uint8)
    pitched[:, :257] = frame
    planes = np.ascontiguousarray(frame.transpose(2, 0, 1))
    bgrx = np.dstack([frame[:, :, ::-1], frame[:, :, :1]])
    plane = planes.strides[0]
    for kept, pixels in (
        (pitched, Pixels(pitched.ctypes.data, 900, 3, (0, 1, 2))),
        (planes, Pixels(planes.ctypes.data, 257, 1, (0, plane, 2 * plane))),
        (bgrx, Pixels(bgrx.ctypes.data, 257 * 4, 4, (2, 1, 0))),
    ):
        assert kept.size
        np.testing.assert_array_equal(resize(frame, spec, pixels), expected)


def test_averages_and_the_box_filter_are_pillows():
    rng = np.random.default_rng(2)
    for size, factor, wanted in (((480, 640), 8, (15, 21)), ((97, 131), 1, (20, 16)), ((333, 5), 3, (1, 2))):
        frame = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        small = np.asarray(reduced(frame, (factor, factor)))
        np.testing.assert_array_equal(resize(frame, Resize.reduced(size, factor)), small)
        box = Image.fromarray(small).resize(wanted[::-1], Image.Resampling.BOX)
        found = resize(small, Resize.box(small.shape[:2], wanted))
        assert np.abs(found.astype(int) - np.asarray(box)).max() <= 1  # Pillow 13 may filter columns first.


def test_brightness_is_pillows():
    """Of a frame of planes in the order blue, green, red."""
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    planes = np.ascontiguousarray(frame[:, :, ::-1].transpose(2, 0, 1))
    out, memory = guarded((61, 83), np.uint8)
    plane = planes.strides[0]
    pixels = Pixels(planes.ctypes.data, 83, 1, (2 * plane, plane, 0))
    KERNELS.grey(pixels, (61, 83), out.ctypes.data, None)
    np.testing.assert_array_equal(out, brightness(frame))
    assert untouched(memory)


def label(
    logits: np.ndarray,
    size: tuple[int, int],
    *,
    threshold: float | None = None,
    covered: tuple[float, float] = (1.0, 1.0),
    classes: np.ndarray | None = None,
    names: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores of the kernel."""

    def rows(points: Points) -> Rows:
        return Rows(points.lower.ctypes.data, points.upper.ctypes.data, points.weight.ctypes.data)

    names = len(logits) if names is None else names
    chosen = np.arange(len(logits), dtype=np.int32) if classes is None else classes.astype(np.int32)
    table = Upsample.of(logits.shape[1:], covered, size)
    labels, memory = guarded(size, label_dtype(names))
    scores, more = guarded(size, np.float32)
    KERNELS.label(
        logits.ctypes.data,
        logits.shape[1:],
        (chosen.ctypes.data, len(chosen)),
        rows(table.rows),
        rows(table.columns),
        size,
        threshold=threshold,
        names=names,
        unknown=unknown_label(names),
        labels=labels.ctypes.data,
        scores=scores.ctypes.data,
        stream=None,
    )
    assert untouched(memory)
    assert untouched(more)
    return labels, scores


def interpolated(logits: np.ndarray, size: tuple[int, int], covered: tuple[float, float]) -> np.ndarray:
    """`(K, H, W)` float64, by the formula of half-pixel centres."""
    inside = logits[:, *covered_cells(logits.shape[1:], covered)].astype(np.float64)
    for axis, (share, pixels) in enumerate(zip(covered, size, strict=True), start=1):
        points, span = inside.shape[axis], logits.shape[axis] * share
        place = np.clip((np.arange(pixels) + 0.5) * (span / pixels) - 0.5, 0, points - 1)
        low = np.minimum(place.astype(int), points - 1)
        high = np.minimum(low + 1, points - 1)
        weight = (place - low).reshape([-1 if i == axis else 1 for i in range(3)])
        inside = inside.take(low, axis) * (1 - weight) + inside.take(high, axis) * weight
    return inside


@pytest.mark.parametrize(
    ("count", "grid", "size", "covered"),
    [
        (1, (1, 1), (3, 5), (1.0, 1.0)),
        (2, (3, 1), (1, 1), (1.0, 1.0)),
        (3, (20, 20), (101, 67), (1.0, 0.63)),
        (20, (11, 14), (97, 131), (1.0, 1.0)),
        (150, (20, 20), (135, 241), (0.5625, 1.0)),
        (255, (7, 9), (64, 65), (1.0, 1.0)),
        (256, (7, 9), (64, 65), (1.0, 1.0)),
        (4096, (5, 4), (33, 18), (1.0, 1.0)),
        (5, (40, 40), (13, 9), (1.0, 1.0)),  # smaller than the grid
    ],
)
def test_labels_are_those_of_the_cpu_except_at_ties(count, grid, size, covered):
    rng = np.random.default_rng(count)
    logits = rng.normal(0, 0.1, (count, *grid)).astype(np.float32)
    exact = interpolated(logits, size, covered)
    best = exact.max(axis=0)
    second = np.sort(exact, axis=0)[-2] if count > 1 else best - 1
    clear = best - second > 1e-6
    assert clear.mean() > 0.99
    for threshold in (None, float(np.median(best))):
        labels, scores = label(logits, size, threshold=threshold, covered=covered)
        expected, expected_scores = argmax_upsampled(logits, size, threshold, covered)
        assert labels.dtype == expected.dtype
        np.testing.assert_allclose(scores, expected_scores, atol=1e-6)
        decided = clear if threshold is None else clear & (np.abs(best - threshold) > 1e-6)
        np.testing.assert_array_equal(labels[decided], expected[decided])
    plain = label(logits, size, covered=covered)[0]
    np.testing.assert_array_equal(plain[clear], exact.argmax(axis=0)[clear])


def test_of_equal_classes_the_first_wins():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(4, 6, 7)).astype(np.float32)
    labels, scores = label(np.concatenate([one, one]), (50, 41))
    np.testing.assert_array_equal(labels, label(one, (50, 41))[0])
    assert labels.max() < 4
    assert np.isfinite(scores).all()


def test_only_the_given_rows_compete_and_winners_beyond_the_names_are_unknown():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(12, 6, 7)).astype(np.float32)
    labels = label(logits, (50, 41), classes=np.array([1, 4, 9]), names=8)[0]
    expected = argmax_upsampled(logits[[1, 4, 9]], (50, 41))[0]
    np.testing.assert_array_equal(labels, np.array([1, 4, 255])[expected])


def test_values_that_are_no_numbers_are_found():
    logits = np.zeros((3, 40, 50), np.float32)
    found = np.zeros(1, np.int32)

    def check() -> int:
        KERNELS.check_finite(logits.ctypes.data, logits.size, found.ctypes.data, None)
        return int(found[0])

    assert check() == 0
    for value in (np.nan, np.inf, -np.inf):
        found[0] = 0
        logits[2, 39, 49] = value
        assert check() == 1
    logits[2] = np.nan
    labels, _ = label(logits, (60, 70))
    assert set(np.unique(labels)) <= {0, 1, 255}
