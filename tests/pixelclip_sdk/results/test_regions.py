"""Regions: which there are, and their measures."""

import pickle

import numpy as np
import pytest

from pixelclip_sdk import (
    PixelClipError,
    Region,
    Segmentation,
    VocabularyError,
    image,
    postprocess,
    segmentation,
)

# Two parts of a, one of them with a hole of b; c above right; unknown pixels below.
LABELS = np.array(
    [
        [0, 0, 0, 2, 2, 2],
        [0, 1, 0, 2, 2, 0],
        [0, 0, 0, 2, 2, 0],
        [255, 255, 255, 255, 255, 0],
    ],
    np.uint8,
)


@pytest.fixture
def result(make_result):
    return make_result(LABELS, ["a", "b", "c"])


def test_regions_are_the_connected_parts_largest_first(result):
    regions = result.regions(min_area=0)
    assert [(r.name, r.label, r.area, r.box) for r in regions] == [
        ("a", 0, 8, (0, 0, 3, 3)),
        ("c", 2, 7, (3, 0, 6, 3)),
        ("a", 0, 3, (5, 1, 6, 4)),
        ("b", 1, 1, (1, 1, 2, 2)),
    ]
    assert regions[0].centroid == (1, 1)
    assert regions[1].centroid == pytest.approx((26 / 7, 6 / 7))
    assert regions[2].centroid == (5, 2)


def test_measures_are_those_of_the_masks(labels, make_result):
    result = make_result(labels)
    regions = result.regions(min_area=0)
    assert sum(region.mask().astype(int) for region in regions).tolist() == np.ones(labels.shape).tolist()
    for region in regions:
        mask = region.mask()
        y, x = np.nonzero(mask)
        assert (labels[mask] == region.label).all()
        assert region.area == mask.sum()
        assert region.box == (x.min(), y.min(), x.max() + 1, y.max() + 1)
        assert region.centroid == pytest.approx((x.mean(), y.mean()))


def test_small_regions_are_left_out(result):
    assert [r.area for r in result.regions(min_area=3 / 24)] == [8, 7, 3]
    assert [r.area for r in result.regions(min_area=3.1 / 24)] == [8, 7]
    assert result.regions(min_area=0.9) == ()


def test_a_region_of_one_pixel_counts_in_a_small_picture_by_default(make_result):
    assert len(make_result(LABELS).regions()) == 4


@pytest.mark.parametrize("classes", ["a", "A", 0, np.int64(0), ["a"], [0, "a"], {"a"}])
def test_regions_of_chosen_classes(result, classes):
    assert [r.area for r in result.regions(min_area=0, classes=classes)] == [8, 3]


def test_unknown_pixels_are_a_region_only_if_asked_for(result):
    (unknown,) = result.regions(min_area=0, classes="unknown")
    assert (unknown.name, unknown.label, unknown.area, unknown.box) == ("unknown", 255, 5, (0, 3, 5, 4))
    assert {r.name for r in result.regions(min_area=0, classes=["b", "unknown"])} == {"b", "unknown"}
    assert result.regions(classes=[]) == ()


def test_what_is_no_class_is_refused(result):
    with pytest.raises(VocabularyError, match="no class 'dog'"):
        result.regions(classes=["a", "dog"])
    with pytest.raises(VocabularyError, match=r"got float 1\.5"):
        result.regions(classes=1.5)


@pytest.mark.parametrize("area", [100, 1, -0.1, float("nan"), True, "0.1", None])
def test_an_area_that_is_no_share_is_refused(result, area):
    with pytest.raises(PixelClipError, match="expected a share of the image"):
        result.regions(min_area=area)
    with pytest.raises(PixelClipError, match="expected a share of the image"):
        result.found(min_area=area)


def test_found_has_the_classes_with_large_regions(result):
    assert result.found(min_area=0) == {"a": 11 / 24, "c": 7 / 24, "b": 1 / 24}
    assert result.found(min_area=5 / 24) == {"a": 8 / 24, "c": 7 / 24}
    assert list(result.found(min_area=0)) == ["a", "c", "b"]


def test_scores_are_means_over_the_region(result):
    scores = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
    result.__dict__["scores"] = scores
    result.__dict__["confidence"] = (scores + 1) / 2
    for region in result.regions(min_area=0):
        mean = scores[region.mask()].mean(dtype=float)
        assert region.score == pytest.approx(mean, abs=1e-6)
        assert region.confidence == pytest.approx((mean + 1) / 2, abs=1e-6)


def test_the_polygon_of_a_region_with_a_hole(result):
    outer, hole = result.regions(min_area=0)[0].polygon
    assert outer.dtype == np.int32
    assert outer.tolist() == [[0, 0], [2, 0], [2, 2], [0, 2]]
    assert sorted(hole.tolist()) == [[0, 1], [1, 0], [1, 2], [2, 1]]
    c = result.regions(classes="c")[0]
    assert c.polygon[0].tolist() == [[3, 0], [5, 0], [4, 1], [4, 2], [3, 2]]
    assert c.outline.tolist() == c.polygon[0].tolist()


def test_regions_of_a_real_photo(lite, photo):
    result = lite.predict(photo)
    regions = result.regions()
    assert regions
    for region in regions:
        np.testing.assert_array_equal(region.mask() & (result.labels == region.label), region.mask())
        assert region.score == pytest.approx(result.scores[region.mask()].mean(dtype=float), abs=1e-6)
    assert sum(result.found().values()) <= sum(result.areas().values()) + 1e-9


def test_regions_can_be_sent_to_another_process(result):
    region = pickle.loads(pickle.dumps(result.regions(min_area=0)))[0]
    assert isinstance(region, Region)
    assert region.area == region.mask().sum() == 8
    assert repr(region) == "Region(name='a', label=0, area=8, box=(0, 0, 3, 3), centroid=(1.0, 1.0))"


def test_many_names_and_a_large_picture(make_result):
    names = [f"n{i}" for i in range(4096)]
    labels = np.arange(2160)[:, None] // 180 * 370 + np.arange(3840) // 240
    labels[-180:] += 10
    labels[0, 0] = 65535
    result = make_result(labels, names)
    regions = result.regions(min_area=0)
    assert len(regions) == len(result.found(min_area=0)) == 12 * 16
    assert {r.area for r in regions} == {180 * 240, 180 * 240 - 1}
    last = result.regions(min_area=0, classes="n4095")[0]
    assert (last.mask() == (labels == 4095)).all()
    assert last.polygon[0].tolist() == [[3600, 1980], [3839, 1980], [3839, 2159], [3600, 2159]]


def test_a_picture_without_a_known_pixel(make_result):
    result = make_result(np.full((3, 4), 255, np.uint8))
    assert isinstance(result, Segmentation)
    assert result.regions(min_area=0) == ()
    assert result.found() == {}


def _everything(result):
    found = result.regions(min_area=0)
    return [
        (r.box, r.area, r.rle(), r.mask().tolist(), [p.tolist() for p in r.polygon], r.outline.tolist())
        for r in found
    ], np.array([(r.score, r.confidence) for r in found])


def test_large_images_are_looked_at_in_strips_and_give_the_same(labels, make_result, monkeypatch):
    result = make_result(labels)
    logits = np.random.default_rng(0).uniform(-1, 1, (12, 4, 5)).astype(np.float32)
    shapes, means = _everything(result.replaced(logits=logits))
    for module, name in ((image, "_STRIP_PIXELS"), (segmentation, "_LARGE")):
        monkeypatch.setattr(module, name, 2 * labels.shape[1] + 1)
    monkeypatch.setattr(postprocess, "_PIECE", 200)
    large = result.replaced(logits=logits)
    again, near = _everything(large)
    assert again == shapes
    assert near == pytest.approx(means, abs=1e-6)
    if labels.size > segmentation._LARGE:
        assert not {"scores", "confidence"} & set(large.__dict__)  # Four bytes a pixel.
