"""Labels along edges by the GPU's kernels, built for this machine's processor, against `refine_edges`."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from host_gpu.kernels import compiler
from host_gpu.machine import machine
from random_inputs import cosines, picture

from pixelclip_sdk import refine
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device.edges import EDGE_KERNELS, Edges, Grid
from pixelclip_sdk.device.kept import Kept
from pixelclip_sdk.device.kernels import KERNELS, Kernels, Pixels
from pixelclip_sdk.device.slots import Slot
from pixelclip_sdk.device.tables import Upsample
from pixelclip_sdk.image import load_image
from pixelclip_sdk.postprocess import label_dtype, labels_upsampled, unknown_label
from pixelclip_sdk.refine import refine_edges

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
# Two classes are nearly tied if their probabilities differ by less, and then on so many pixels at most. The
# kernels sum in another order than numpy.
NEAR, RARE = 1e-3, 2e-4
WHOLE = (1.0, 1.0)


@pytest.fixture(scope="module")
def labels_of() -> Iterator[Callable[..., np.ndarray]]:
    """Labels of the kernels, from logits and an image."""
    if compiler() is None:
        pytest.skip("there is no C++ compiler (g++ or clang++)")
    with machine() as (host, _), contextlib.ExitStack() as release:
        cuda = Cuda()
        kernels = Kernels(cuda.load_kernels(b"code", (*KERNELS, *EDGE_KERNELS)))
        stream = cuda.stream(release)
        tables = Kept(cuda, stream)
        edges, slot = Edges(cuda, kernels, tables), Slot(cuda)

        def run(
            logits: np.ndarray,
            image: np.ndarray,
            covered: tuple[float, float] = WHOLE,
            *,
            threshold: float | None = None,
            classes: np.ndarray | None = None,
            names: int | None = None,
        ) -> np.ndarray:
            names = len(logits) if names is None else names
            chosen = np.arange(len(logits)) if classes is None else classes
            chosen = chosen.astype(np.int32)
            (height, width), shape = image.shape[:2], logits.shape[1:]
            labels = np.zeros((height, width), label_dtype(names))
            with contextlib.ExitStack() as arrays:
                frame, grid, scores, rows, out = (
                    arrays.enter_context(host.array(one))
                    for one in (image, logits, np.zeros((height, width), np.float32), chosen, labels)
                )
                pixels = Pixels(frame, width * 3, 3, (0, 1, 2))
                edges.read(pixels, (height, width), slot)
                cuda.call("cudaEventRecord", slot.ready, slot.stream)
                cuda.wait(stream, slot.ready)
                beside = tables.upsample(
                    (shape, covered, height, width), lambda: Upsample.of(shape, covered, (height, width))
                )
                target = {
                    "threshold": threshold,
                    "names": names,
                    "unknown": unknown_label(names),
                    "labels": out,
                    "scores": scores,
                    "stream": stream,
                }
                kernels.label(grid, shape, (rows, len(chosen)), *beside, (height, width), **target)
                one = Grid(grid, shape, covered, rows, len(chosen))
                edges.relabel(one, (height, width), slot, **target)
                cuda.synchronize(stream)
                memory = host.at(out, labels.nbytes, "device")
                return memory.view(labels.dtype).reshape(labels.shape).copy()

        yield run
        edges.close()
        tables.close()
        slot.close()  # Freeing checks that nothing was written beyond the end.


def margins(logits: np.ndarray, image: np.ndarray, covered: tuple[float, float]) -> np.ndarray:
    """How far the two best probabilities of each pixel are apart on the CPU: `(H, W)`."""
    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        evaluate = refine._evaluate
        patch.setattr(refine, "_evaluate", lambda *given: kept.update(given=given) or evaluate(*given))
        refine_edges(logits, image, covered)
    (slope, offset), guide, step, names, _ = kept["given"]
    if len(names) == 1:
        return np.ones(guide.shape)
    table = Upsample.between(slope.shape[1:], step, guide.shape)

    def interpolated(grid: np.ndarray) -> np.ndarray:
        rows, columns = table.rows, table.columns
        grid = grid.astype(np.float64)
        across = columns.weight.astype(np.float64)
        grid = grid[:, :, columns.lower] * (1 - across) + grid[:, :, columns.upper] * across
        down = rows.weight.astype(np.float64)[:, None]
        return grid[:, rows.lower] * (1 - down) + grid[:, rows.upper] * down

    best = np.full((2, *guide.shape), -np.inf)
    for one, base in zip(slope, offset, strict=True):
        value = interpolated(one[None])[0] * guide + interpolated(base[None])[0]
        best[1] = np.maximum(best[1], np.minimum(best[0], value))
        best[0] = np.maximum(best[0], value)
    return best[0] - best[1]


def check(found: np.ndarray, expected: np.ndarray, margin: np.ndarray) -> None:
    """Labels differ only where two classes are nearly tied, and rarely."""
    assert found.dtype == expected.dtype
    differ = found != expected
    assert differ.mean() <= RARE
    assert margin[differ].max(initial=0) < NEAR


@pytest.mark.parametrize(
    ("count", "grid", "size", "covered"),
    [
        (1, (1, 1), (3, 5), WHOLE),
        (2, (3, 1), (40, 1), WHOLE),
        (3, (20, 20), (101, 67), (1.0, 0.63)),
        (20, (11, 14), (97, 131), WHOLE),
        (150, (20, 20), (135, 241), (0.5625, 1.0)),
        (256, (7, 9), (64, 65), WHOLE),
        (4096, (5, 4), (11, 14), WHOLE),
        (5, (40, 40), (13, 9), WHOLE),  # smaller than the grid
        (20, (10, 15), (413, 601), WHOLE),
    ],
)
def test_labels_are_those_of_the_cpu_except_near_ties(labels_of, count, grid, size, covered):
    logits, image = cosines(count, *grid, seed=count), picture(*size, seed=count)
    expected, _ = refine_edges(logits, image, covered)
    check(labels_of(logits, image, covered), expected, margins(logits, image, covered))


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_photos(labels_of, lite, name):
    image = load_image(PHOTOS / f"{name}.jpg")
    words = ["cat", "cup", "table", "spoon", "wall", "person", "floor", "saucer", "sofa", "grass"]
    result = lite.with_classes(words).predict(image)
    assert result.refine == "edges"
    found = labels_of(result.logits, image, result.covered)
    assert len(np.unique(found)) > 1
    assert (labels_upsampled(result.logits, image.shape[:2]) != result.labels).mean() > 0.02
    check(found, result.labels, margins(result.logits, image, result.covered))


def test_pixels_below_the_threshold_are_unknown(labels_of):
    logits, image = cosines(8, 6, 7), picture(80, 90)
    plain = labels_upsampled(logits, (80, 90), 0.3)
    found = labels_of(logits, image, threshold=0.3)
    np.testing.assert_array_equal(found == 255, plain == 255)
    assert 0.1 < (plain == 255).mean() < 0.9
    np.testing.assert_array_equal(found[found < 255], labels_of(logits, image)[found < 255])


def test_only_the_given_rows_compete_and_winners_beyond_the_names_are_unknown(labels_of):
    logits, image = cosines(12, 6, 7), picture(80, 90)
    found = labels_of(logits, image, classes=np.array([1, 4, 9]), names=8)
    expected = np.array([1, 4, 255], np.uint8)[refine_edges(logits[[1, 4, 9]], image)[0]]
    check(found, expected, margins(logits[[1, 4, 9]], image, WHOLE))
    assert set(np.unique(found)) == {1, 4, 255}


def test_of_equal_classes_the_first_wins(labels_of):
    logits, image = cosines(4, 6, 7), picture(80, 90)
    found = labels_of(np.concatenate([logits, logits]), image)
    assert set(np.unique(found)) == {0, 1, 2, 3}


def test_a_strip_keeps_interpolated_labels(labels_of):
    logits, image = cosines(5, 1, 9), picture(2, 2100)
    np.testing.assert_array_equal(labels_of(logits, image), refine_edges(logits, image)[0])
    np.testing.assert_array_equal(labels_of(logits, image), labels_upsampled(logits, (2, 2100)))


def test_values_that_are_no_numbers_do_no_harm(labels_of):
    """`check_finite` reports them."""
    image = picture(80, 90)
    for value in (np.nan, np.inf, -np.inf):
        logits = cosines(5, 6, 7)
        logits[2, 3, 3] = value
        assert set(np.unique(labels_of(logits, image))) <= {0, 1, 2, 3, 4, 255}
        logits[:] = value
        assert set(np.unique(labels_of(logits, image))) <= {0, 1, 2, 3, 4, 255}
