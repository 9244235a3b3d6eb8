"""Windows cover a picture, blend without seams, and find what one view of the picture cannot show."""

import pickle

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.preprocess import input_size
from pixelclip_sdk.tiles import MAX_TILES, View, interpolation

ANY_SIZE = InputSpec(height=64, width=96, multiple=8, fixed=False, keep_aspect=True)
SQUASHED = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)
PADDED = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=True)
SPECS = pytest.mark.parametrize("spec", [ANY_SIZE, SQUASHED, PADDED], ids=["any", "squashed", "padded"])


def dots(height, width, every, side):
    """A green picture with red squares, and the slice of each square."""
    image = np.full((height, width, 3), (0, 255, 0), np.uint8)
    places = [
        np.s_[y : y + side, x : x + side]
        for y in range(every // 2, height - side, every)
        for x in range(every // 2, width - side, every)
    ]
    for place in places:
        image[place] = (255, 0, 0)
    return image, places


@SPECS
@pytest.mark.parametrize("size", [(64, 96), (300, 400), (401, 97), (50, 900), (1, 1)])
@pytest.mark.parametrize("tiles", [1, 3, 4, 12, 64, "auto"])
def test_windows_cover_the_canvas_and_are_no_more_than_asked_for(spec, size, tiles):
    view = View(size, spec, tiles)
    assert len(view.windows) <= (MAX_TILES if tiles == "auto" else tiles)
    inputs = view.inputs(np.zeros((*size, 3), np.uint8))
    assert len(inputs) == 1 + len(view.windows)
    assert {image.shape for image in inputs} == {(*input_size(*size, spec), 3)}
    if view.windows:
        (height, width), (last_y, last_x) = inputs[0].shape[:2], view.windows[-1]
        seen = np.zeros((last_y + height, last_x + width), bool)
        for y, x in view.windows:
            assert y % spec.multiple == x % spec.multiple == 0
            seen[y : y + height, x : x + width] = True
        assert seen.all()
        grids = [np.full((2, height // 8, width // 8), 0.25, np.float32)] * len(inputs)
        np.testing.assert_allclose(view.blend(grids), 0.25, rtol=1e-5)


def test_the_number_of_windows_follows_the_size():
    lite = InputSpec(height=352, width=448, multiple=32, fixed=False, keep_aspect=True)
    counts = {
        size: len(View(size, lite, "auto").windows)
        for size in [(480, 640), (1080, 1920), (2160, 3840), (3024, 4032), (20_000, 30_000)]
    }
    assert counts == {
        (480, 640): 0,
        (1080, 1920): 0,
        (2160, 3840): 4,
        (3024, 4032): 9,
        (20_000, 30_000): counts[20_000, 30_000],
    }
    assert 40 < counts[20_000, 30_000] <= MAX_TILES
    assert [len(View((480, 640), lite, n).windows) for n in (1, 2, 4, 9, 16)] == [0, 0, 4, 9, 16]
    assert len(View((400, 3200), SQUASHED, 8).windows) == 8  # A panorama is cut along its long side.


def test_blended_logits_are_those_of_one_large_pass_and_the_whole_picture(colour_vocabulary):
    """The fake encoder sees no further than a cell, so windows and one large input give equal cells."""
    rng = np.random.default_rng(0)
    image = np.asarray(Image.fromarray(rng.integers(0, 256, (12, 20, 3), np.uint8)).resize((320, 192)))
    text = colour_vocabulary("red", "green").embeddings
    engine, view = FakeBackend(), View((192, 320), ANY_SIZE, 9)
    assert len(view.windows) == 9
    inputs = view.inputs(image)
    blended = view.blend([engine.logits(seen[None], text)[0] for seen in inputs])
    canvas = np.zeros((*np.add(view.windows[-1], inputs[0].shape[:2]), 3), np.uint8)
    for (y, x), seen in zip(view.windows, inputs[1:], strict=True):
        canvas[y : y + seen.shape[0], x : x + seen.shape[1]] = seen
    large = engine.logits(canvas[None], text)[0]
    whole = engine.logits(inputs[0][None], text)[0]
    rows, columns = (
        interpolation(small, (np.arange(n) + 0.5) * small / n - 0.5)
        for n, small in zip(large.shape[1:], whole.shape[1:], strict=True)
    )
    np.testing.assert_allclose(blended, 0.7 * large + 0.3 * rows @ whole @ columns.T, atol=1e-6)


def test_windows_whose_starts_fall_between_grid_points_are_interpolated():
    """A ramp over the canvas stays a ramp, with 5 grid points for a window of 64 pixels."""
    view = View((300, 300), SQUASHED, 9)
    size, cells = view.windows[-1][0] + 64, 5
    at = (np.arange(cells) + 0.5) * 64 / cells
    whole = np.broadcast_to((np.arange(cells) + 0.5) / cells * size, (1, cells, cells))
    windows = [np.broadcast_to(x + at, (1, cells, cells)) for _, x in view.windows]
    blended = view.blend([grid.astype(np.float32) for grid in (whole, *windows)])
    points = (np.arange(blended.shape[2]) + 0.5) * size / blended.shape[2]
    inner = (points > size / cells / 2) & (points < size - size / cells / 2)
    np.testing.assert_allclose(blended[0, 0, inner], points[inner], atol=7)  # Half a grid point.


@SPECS
def test_small_things_of_a_large_picture_are_found(spec, colour_vocabulary):
    image, places = dots(512, 768, every=128, side=30)
    with Segmenter(FakeBackend(), spec, vocabulary=colour_vocabulary("red", "green")) as segmenter:
        whole, tiled = segmenter.predict(image), segmenter.predict(image, tiles=64)
    found = [[result.mask("red")[place][15, 15] for place in places] for result in (whole, tiled)]
    assert len(places) == 24
    assert sum(found[0]) == 0
    assert sum(found[1]) == 24
    assert tiled.mask("red").mean() < 2 * 24 * 30 * 30 / image[:, :, 0].size
    assert tiled.labels.shape == tiled.scores.shape == (512, 768)
    assert tiled.covered == (1.0, 1.0)


@SPECS
def test_each_half_of_a_picture_gets_its_colour_without_seams(spec, colour_vocabulary):
    image = np.full((300, 500, 3), (0, 255, 0), np.uint8)
    image[:, 250:] = (0, 0, 255)
    with Segmenter(FakeBackend(), spec, vocabulary=colour_vocabulary("blue", "green")) as segmenter:
        labels = segmenter.predict(image, tiles=12).labels
    assert (labels[:, :225] == 1).all()
    assert (labels[:, 275:] == 0).all()


def test_tiles_are_a_setting_that_a_call_overrides(colour_vocabulary):
    image, _ = dots(256, 384, every=64, side=16)
    with Segmenter(FakeBackend(), ANY_SIZE, vocabulary=colour_vocabulary("red", "green"), tiles=4) as s:
        assert s.tiles == 4
        tiled = s.predict(image)
        (streamed,) = s.stream([image])
        whole = s.predict(image, tiles=1)
        s.tiles = 1
        assert (s.predict(image).logits == whole.logits).all()
        both = s.predict_batch([image, image[:64]], tiles=4)
    assert (tiled.logits == streamed.logits).all()
    assert tiled.logits.shape > whole.logits.shape == (2, 8, 12)
    np.testing.assert_allclose(both[0].logits, tiled.logits, atol=1e-6)
    assert set(tiled.speed) == {"decode", "preprocess", "inference", "refine", "postprocess", "total"}
    assert tiled.speed["total"] == pytest.approx(sum(tiled.speed.values()) - tiled.speed["total"])


def test_the_bundled_model_runs_in_windows_and_a_pickle_keeps_the_setting():
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with Segmenter.from_pretrained(classes="cat, sofa", tiles="auto", input_size=(96, 128)) as segmenter:
        auto, one, nine = (segmenter.predict(image, tiles=n) for n in (None, 1, 9))
        with pickle.loads(pickle.dumps(segmenter)) as again:
            assert again.tiles == "auto"
    assert one.logits.shape == (2, 3, 4)
    assert auto.logits.shape == (2, 3, 5)  # Shrunk by 4 instead of 5.
    assert nine.logits.shape[1] > 2 * one.logits.shape[1]


@pytest.mark.parametrize("value", [0, -1, 65, 2.5, True, "many", "4", None])
def test_other_values_are_refused(value, colour_vocabulary):
    with pytest.raises(PixelClipError, match=r'tiles is .*; expected "auto" or a number of windows, 1 to 64'):
        Segmenter(FakeBackend(), ANY_SIZE, vocabulary=colour_vocabulary("red"), tiles=value)
