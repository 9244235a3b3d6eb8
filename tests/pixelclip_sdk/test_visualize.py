import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pixelclip_sdk import Segmentation, visualize
from pixelclip_sdk.support import fonts
from pixelclip_sdk.visualize import draw_overlay, palette

SIZE = (120, 200)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def drawn(image, labels, count, **options):
    unknown = np.iinfo(labels.dtype).max
    names = [f"name {i}" for i in range(count)]
    counts = np.bincount(labels[labels != unknown].ravel().astype(int), minlength=count)
    areas = dict(zip(names, counts / labels.size, strict=True))
    return np.asarray(draw_overlay(image, labels, names, areas, unknown, **options))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("opacity", [0, 0.55, 1])
def test_the_tint_is_the_mix_of_picture_and_palette(image, dtype, opacity):
    labels = np.zeros(SIZE, dtype)
    labels[:, 100:] = 2
    labels[60:] = np.iinfo(dtype).max
    found = drawn(image, labels, 3, opacity=opacity, legend=False)
    colours = np.array([*palette(3), (90, 90, 90)])
    expected = (1 - opacity) * image + opacity * colours[np.minimum(labels, 3)]
    border = np.zeros(SIZE, bool)
    border[:60, 99] = border[59] = True
    expected[border] = 255
    assert np.abs(found - expected).max() <= 1.5


@pytest.mark.parametrize("count", [254, 255, 256])
def test_254_to_256_names_are_drawn(image, count):
    labels = np.zeros(SIZE, np.uint8 if count <= 255 else np.uint16)
    labels[60:] = count - 1
    labels[:, 100:] = np.iinfo(labels.dtype).max
    found = drawn(image, labels, count, opacity=1, legend=False)
    colours = [*palette(count), (90, 90, 90)]
    for y, x, index in ((30, 50, 0), (90, 50, count - 1), (30, 150, count)):
        assert tuple(found[y, x]) == tuple(colours[index])


def test_colours_of_many_classes_differ():
    colours = palette(171).astype(int)
    steps = np.abs(colours[:, None] - colours).max(-1) + 255 * np.eye(len(colours), dtype=int)
    assert steps.min() >= 16
    assert np.abs(colours - np.array([[90, 90, 90]])).max(-1).min() >= 16  # Grey is unknown.


def test_the_first_colours_are_the_same_for_every_count():
    for fewer, more in ((3, 24), (24, 25), (30, 171)):
        np.testing.assert_array_equal(palette(fewer), palette(more)[:fewer])
    assert palette(0).shape == (0, 3)
    assert palette(10_000).shape == (10_000, 3)


def test_a_legend_inside_keeps_the_size_and_lists_found_classes(image):
    labels = np.zeros(SIZE, np.uint8)
    labels[60:] = 1
    plain = drawn(image, labels, 5, legend=False)
    inside = drawn(image, labels, 5, legend="inside")
    assert inside.shape == image.shape
    changed = (inside != plain).any(axis=2)
    assert 0.005 < changed.mean() < 0.2
    one = drawn(image, np.zeros(SIZE, np.uint8), 5, legend="inside")
    tall = np.flatnonzero(changed.any(axis=1)).max()
    short = np.flatnonzero(
        (one != drawn(image, np.zeros(SIZE, np.uint8), 5, legend=False)).any(axis=(1, 2))
    ).max()
    assert tall > short  # Two lines and one.


def test_the_lines_of_a_legend_keep_their_order_from_frame_to_frame(image):
    small, large = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    small[:30], large[:90] = 1, 1
    corner = np.s_[:60, :40]
    blank = np.zeros_like(image)
    first, second = (drawn(blank, labels, 2, opacity=0, legend="inside") for labels in (small, large))
    legend = (first != 0).any(axis=2)[corner] & (second != 0).any(axis=2)[corner]
    assert legend.any()
    np.testing.assert_array_equal(first[corner][legend], second[corner][legend])


def test_a_tiny_image_gets_no_legend_inside():
    image = np.zeros((8, 8, 3), np.uint8)
    assert drawn(image, np.zeros((8, 8), np.uint8), 1, legend="inside").shape == (8, 8, 3)


@pytest.mark.parametrize(("count", "dtype"), [(3, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_areas_count_every_pixel_once(image, count, dtype):
    labels = np.random.default_rng(1).integers(0, count, SIZE).astype(dtype)
    labels[0] = np.iinfo(dtype).max
    result = Segmentation(
        labels=labels,
        logits=np.zeros((count, 1, 1), np.float32),
        names=[str(i) for i in range(count)],
        image=image,
        speed={},
    )
    areas = result.areas()
    assert all(areas[str(i)] == (labels == i).mean() for i in range(count))
    assert list(areas.values()) == sorted(areas.values(), reverse=True)
    assert sum(areas.values()) == pytest.approx(1 - 1 / SIZE[0])


@pytest.mark.parametrize("name", ["Kätzchen", "кошка", "γάτα"])
def test_letters_beyond_ascii_are_drawn(name):
    image, labels = np.zeros((40, 400, 3), np.uint8), np.zeros((40, 400), np.uint8)
    legend = np.asarray(draw_overlay(image, labels, [name], {name: 1.0}, 255))[40:]
    font = ImageFont.truetype(str(fonts._OWN_FONT), 12)
    expected = Image.new("RGB", legend.shape[1::-1], "white")
    ImageDraw.Draw(expected).text((24, 12), f"{name} 100%", fill="black", font=font, anchor="lm")
    np.testing.assert_array_equal(legend[:, 24:], np.asarray(expected)[:, 24:])


def test_a_name_that_no_font_can_draw_is_escaped(monkeypatch):
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    fonts._font_file.cache_clear()
    try:
        labels = np.ones((40, 400), np.uint8)
        picture = draw_overlay(
            np.zeros((40, 400, 3), np.uint8),
            labels,
            ["dog", "\U0010fffe x"],
            {"dog": 0.0, "\U0010fffe x": 1.0},
            255,
        )
        expected = draw_overlay(
            np.zeros((40, 400, 3), np.uint8),
            labels,
            ["dog", "1: \\U0010fffe x"],
            {"1: \\U0010fffe x": 1.0},
            255,
        )
        np.testing.assert_array_equal(np.asarray(picture), np.asarray(expected))
    finally:
        fonts._font_file.cache_clear()


@pytest.mark.parametrize(
    ("legend", "height", "expected"),
    [
        ("inside", 60, ["name 4", "name 5", "+4 more"]),
        ("inside", 240, [f"name {i}" for i in range(6)]),
        (
            True,
            60,
            ["name 5 29%", "name 4 24%", "name 3 19%", "name 2 14%", "name 1 10%", "name 0 5%"],
        ),
    ],
)
def test_a_legend_lists_the_largest_areas_and_counts_the_others(legend, height, expected, monkeypatch):
    texts = []
    monkeypatch.setattr(visualize, "draw_text", lambda _draw, _corner, text, _size: texts.append(text))
    visualize._legend_line.cache_clear()
    labels = np.repeat(np.arange(6), [10, 20, 30, 40, 50, 60]).astype(np.uint8)[None].repeat(height, 0)
    drawn(np.zeros((*labels.shape, 3), np.uint8), labels, 6, legend=legend)
    visualize._legend_line.cache_clear()
    assert texts == expected


def test_a_legend_below_counts_the_names_that_it_leaves_out(monkeypatch):
    texts = []
    monkeypatch.setattr(visualize, "draw_text", lambda _draw, _corner, text, _size: texts.append(text))
    labels = np.arange(30, dtype=np.uint8)[None].repeat(4, 0)
    drawn(np.zeros((4, 30, 3), np.uint8), labels, 30)
    assert len(texts) == 24
    drawn(np.zeros((4, 300, 3), np.uint8), labels.repeat(10, 1), 30)
    assert texts[-1] == "+7 more"
    assert texts[-2] == "name 22 3%"


def test_names_stay_in_the_legends_of_a_stream(fake):
    red = np.full((240, 320, 3), (255, 0, 0), np.uint8)
    green = np.full((240, 320, 3), (0, 255, 0), np.uint8)
    results = list(fake.stream([red, green, red]))
    pictures = [np.asarray(result.plot(opacity=0, legend="inside")) for result in results]
    legends = [
        (picture != result.image).any(axis=2) for picture, result in zip(pictures, results, strict=True)
    ]
    rows = [int(legend.any(axis=1).sum()) for legend in legends]
    assert rows[1] == rows[2] > rows[0] > 0  # Green is added below red, and stays.
    assert results[0].frame.seen == {"red": None, "green": None}
    alone = np.asarray(fake.predict(red).plot(opacity=0, legend="inside"))
    np.testing.assert_array_equal(alone, pictures[0])


def test_large_pictures_are_drawn_in_strips_and_look_the_same(image, monkeypatch):
    labels = np.random.default_rng(1).integers(0, 3, SIZE, dtype=np.uint8)
    whole = drawn(image, labels, 3)
    monkeypatch.setattr("pixelclip_sdk.image._STRIP_PIXELS", 7 * SIZE[1])
    for picture in (image, Image.fromarray(image)):
        np.testing.assert_array_equal(drawn(picture, labels, 3), whole)
