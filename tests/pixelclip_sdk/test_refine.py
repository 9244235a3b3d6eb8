import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from random_inputs import cosines, picture

from pixelclip_sdk import BackendError, PixelClipError
from pixelclip_sdk import refine as module
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.refine import refine_edges


def two_halves(width: int) -> np.ndarray:
    """Two classes on a 4×4 grid, which meet in the middle."""
    logits = np.zeros((2, 4, width), np.float32)
    logits[0, :, : width // 2] = logits[1, :, width // 2 :] = 0.3
    return logits


@pytest.mark.parametrize("edge", [70, 80, 90])
def test_the_border_lies_on_the_edge_of_brightness(edge):
    image = np.full((120, 160, 3), 40, np.uint8)
    image[:, edge:] = 200
    assert (labels_upsampled(two_halves(4), (120, 160))[:, :80] == 0).all()
    labels, _ = refine_edges(two_halves(4), image)
    assert (labels[:, :edge] == 0).all()
    assert (labels[:, edge:] == 1).all()


def test_points_of_one_colour_agree():
    """One cell of the left half is mistaken; its colour is that of its neighbours."""
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, :80], image[:, 80:] = (200, 30, 30), (30, 30, 200)
    logits = two_halves(8)
    logits[:, 1, 2] = (0.2, 0.3)
    assert labels_upsampled(logits, (120, 160))[45, 50] == 1
    labels, _ = refine_edges(logits, image)
    assert (labels[:, :78] == 0).all()
    assert (labels[:, 82:] == 1).all()


def test_an_image_without_edges_keeps_its_halves():
    labels, probability = refine_edges(
        two_halves(4), np.full((90, 120, 3), 128, np.uint8), with_probability=True
    )
    assert probability is not None
    assert (labels[:, :50] == 0).all()
    assert (labels[:, 70:] == 1).all()
    assert np.isfinite(probability).all()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (61, 83), (333, 501), (7, 5), (1, 700)])
def test_only_evaluating_possible_winners_changes_nothing(height, width, monkeypatch):
    """Against all functions at all pixels, in float64."""
    kept = {}
    evaluate = module._evaluate

    def spy(*arguments):
        kept["arguments"] = arguments
        return evaluate(*arguments)

    monkeypatch.setattr(module, "_evaluate", spy)
    labels, best = refine_edges(cosines(9, 5, 6), picture(height, width), with_probability=True)
    (slope, offset), guide, step, names, _ = kept["arguments"]
    assert len(names) > 1
    down, across = (
        linear(slope.shape[axis + 1], guide.shape[axis] / step, guide.shape[axis]) for axis in (0, 1)
    )
    values = (down @ slope @ across.T) * guide + down @ offset @ across.T
    first, second = np.sort(values, axis=0)[[-1, -2]]
    assert (labels == names[values.argmax(axis=0)])[first - second > 1e-5].all()
    np.testing.assert_allclose(best, np.clip(first, 0, 1), atol=1e-5)
    assert (refine_edges(cosines(9, 5, 6), picture(height, width))[0] == labels).all()


def linear(points: int, span: float, pixels: int) -> np.ndarray:
    """Interpolation weights, `(pixels, points)`, as `np.interp` has them."""
    position = (np.arange(pixels) + 0.5) * span / pixels - 0.5
    return np.stack([np.interp(position, np.arange(points), row) for row in np.eye(points)], axis=1)


def test_agreement_equals_the_published_algorithm(monkeypatch):
    """Sums over pairs of points, in float64, as in algorithm 1 of Krähenbühl and Koltun."""
    monkeypatch.setattr(module, "_POINTS", 12)
    small, grid = Image.fromarray(picture(12, 16)), cosines(3, 2, 3)
    classes, chance = module._agree(grid, (2.0, 3.0), small, (3, 4), 0.05)
    rows, columns = chance.shape[1:]
    assert (rows, columns) == (3, 4)
    soft = np.exp(grid.astype(float) / 0.05)
    soft /= soft.sum(axis=0)
    prior = (linear(2, 2, rows) @ soft @ linear(3, 3, columns).T).reshape(3, -1)
    colours = np.asarray(small.resize((columns, rows), Image.Resampling.BOX), float).reshape(-1, 3)
    unit = math.sqrt(12 * 16)
    places = [((i + 0.5) * 12 / rows, (j + 0.5) * 16 / columns) for i in range(rows) for j in range(columns)]
    weights = np.zeros((12, 12))
    for i in range(12):
        for j in range(12):
            far = math.dist(colours[i], colours[j]) / module.COLOUR
            near = math.dist(places[i], places[j]) / (module._DISTANCE * unit)
            weights[i, j] = math.exp(-(far**2 + near**2) / 2) if i != j else 0
    weights /= weights.sum(axis=1, keepdims=True) + 1e-6
    expected = prior
    for _ in range(module.STEPS):
        expected = np.exp(np.log(prior + 1e-6) + module.WEIGHT * (expected @ weights.T))
        expected /= expected.sum(axis=0)
    np.testing.assert_allclose(chance.reshape(len(classes), -1), expected[classes], atol=1e-4)


def test_coefficients_are_those_of_the_guided_filter():
    """Least squares in every window, then means over the windows, as in He and Sun."""
    rng = np.random.default_rng(1)
    guide, points = rng.uniform(0, 255, (5, 6)).astype(np.float32), rng.random((2, 5, 6), np.float32)
    slope, offset = module._coefficients(points, guide, 1)
    steep, base = np.zeros((2, 5, 6)), np.zeros((2, 5, 6))

    def window(i, j):
        return np.s_[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]

    for i in range(5):
        for j in range(6):
            light = guide[window(i, j)].astype(float)
            for k in range(2):
                chance = points[k][window(i, j)].astype(float)
                covariance = (light * chance).mean() - light.mean() * chance.mean()
                steep[k, i, j] = covariance / (light.var() + module.FLAT)
                base[k, i, j] = chance.mean() - steep[k, i, j] * light.mean()
    for found, expected in ((slope, steep), (offset, base)):
        means = [
            [expected[(slice(None), *window(i, j))].mean(axis=(1, 2)) for j in range(6)] for i in range(5)
        ]
        np.testing.assert_allclose(found, np.moveaxis(means, -1, 0), rtol=1e-3, atol=1e-5)


def test_an_image_and_an_array_give_the_same_labels():
    image, logits = picture(60, 80), cosines(4, 3, 4)
    assert (refine_edges(logits, image)[0] == refine_edges(logits, Image.fromarray(image))[0]).all()


def test_a_mirrored_image_gives_mirrored_labels():
    image, logits = picture(240, 320), cosines(6, 6, 8)
    labels, _ = refine_edges(logits, image)
    mirrored, _ = refine_edges(logits[:, :, ::-1], np.ascontiguousarray(image[:, ::-1]))
    assert (labels == mirrored[:, ::-1]).mean() > 0.999


def test_padding_has_no_effect():
    image, logits = picture(60, 160), cosines(4, 8, 8)
    expected, _ = refine_edges(logits[:, :4], image)
    logits[:, 4:] = np.nan
    assert (refine_edges(logits, image, (0.5, 1.0))[0] == expected).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_images_of_any_shape(size):
    labels, probability = refine_edges(cosines(3, 4, 4), picture(*size), with_probability=True)
    assert probability is not None
    assert labels.shape == probability.shape == size
    assert labels.max() < 3
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 2)])
def test_a_strip_gets_interpolated_labels(size):
    """The grid of coefficients of a strip would take seconds and gigabytes."""
    logits = cosines(3, 4, 5)
    tracemalloc.start()
    labels, _ = refine_edges(logits, np.zeros((*size, 3), np.uint8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(labels, labels_upsampled(logits, size))
    assert peak < 64e6


def test_one_class_wins_everywhere():
    labels, _ = refine_edges(cosines(1, 4, 4), picture(40, 40))
    assert (labels == 0).all()


def test_equal_classes_share_the_probability():
    """Rounding decides between them; it differs between versions of numpy."""
    labels, probability = refine_edges(
        np.full((3, 4, 4), 0.2, np.float32), picture(40, 60), with_probability=True
    )
    assert labels.max() < 3
    np.testing.assert_allclose(probability, 1 / 3, atol=1e-4)


def test_many_classes():
    logits = cosines(4096, 11, 15, seed=3)
    labels, _ = refine_edges(logits, picture(240, 320))
    assert labels.dtype == np.uint16
    assert len(np.unique(labels)) > 20
    assert refine_edges(logits[:255], picture(24, 32))[0].dtype == np.uint8


def test_memory_is_a_few_bytes_for_each_pixel():
    image = Image.fromarray(picture(2160, 3840))
    logits = cosines(20, 11, 19)
    tracemalloc.start()
    labels, _ = refine_edges(logits, image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * labels.size  # Labels, brightness, and a padded copy of it: 3 bytes.


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_an_error(value):
    logits = cosines(3, 4, 4)
    logits[1, 2, 3] = value
    with pytest.raises(BackendError, match="not finite"):
        refine_edges(logits, picture(20, 30))


@pytest.mark.parametrize("refine", ["off", None])
def test_off_is_interpolation_alone(lite, photo, refine):
    result = lite.predict(photo, refine=refine)
    assert result.refine == "off"
    assert (result.labels == labels_upsampled(result.logits, result.orig_shape)).all()
    assert (result.refined(refine).labels == result.labels).all()


def test_a_result_is_refined_afterwards_as_predict_would(lite):
    coffee = Path(__file__).parents[2] / "examples" / "photos" / "coffee.jpg"
    limit = float(np.median(lite.predict(coffee).scores))
    off = lite.predict(coffee, threshold=limit, refine="off")
    edges = lite.predict(coffee, threshold=limit, refine="edges")
    again = off.refined()
    assert (off.refine, edges.refine, again.refine) == ("off", "edges", "edges")
    assert (again.labels == edges.labels).all()
    assert (edges.labels != off.labels).any()
    np.testing.assert_array_equal(edges.labels == edges.unknown, off.scores < limit)
    assert (edges.refined("off").labels == off.labels).all()
    assert off.refined().frame is off.frame


def test_auto_is_what_the_bundle_recommends(lite, fake, patches):
    assert lite.bundle.refine == lite.refine == "edges"
    assert fake.refine == fake.predict(patches).refine == "off"
    assert fake.predict(patches, refine="edges").refine == "edges"
    fake.refine = "edges"
    assert fake.predict(patches).refine == "edges"
    assert fake.predict(patches, refine=None).refine == "off"
    assert [result.refine for result in fake.stream([patches])] == ["edges"]
    assert [result.refine for result in fake.stream([patches], refine="off")] == ["off"]
    assert fake.predict_batch([patches, patches])[1].refine == "edges"
    fake.refine = "auto"
    assert fake.refine == "off"


@pytest.mark.parametrize("value", ["edge", True, 3])
def test_other_settings_are_refused(fake, patches, value):
    for call in (fake.predict, lambda image, **options: fake.stream([image], **options)):
        with pytest.raises(PixelClipError, match=r"refine is .* expected"):
            call(patches, refine=value)
    with pytest.raises(PixelClipError, match="refine"):
        fake.refine = value
    with pytest.raises(PixelClipError, match="refine"):
        fake.predict(patches).refined(value)
