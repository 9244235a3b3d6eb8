import dataclasses
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import OutputError, PixelClipError, Segmentation, VocabularyError


@pytest.fixture
def result(fake, patches):
    return fake.predict(patches)


def test_masks_areas_and_unknown(fake, result, patches):
    assert result.mask("red").sum() + result.mask("green").sum() + result.mask("blue").sum() == 64 * 64
    areas = result.areas()
    assert list(areas) == ["red", "green", "blue"]
    assert sum(areas.values()) == pytest.approx(1)
    assert areas["red"] == pytest.approx(0.5, abs=0.05)
    shown = fake.predict(patches, threshold=0.9).areas()
    hidden = fake.predict(np.full_like(patches, (255, 255, 0)), threshold=0.9)
    assert sum(shown.values()) > 0.5
    assert sum(hidden.areas().values()) == 0


def test_an_unknown_name_is_refused_with_the_nearest(result):
    with pytest.raises(VocabularyError, match="Did you mean 'green'"):
        result.mask("gren")


def test_plot_shows_regions_and_a_legend(result):
    plain = np.asarray(result.plot(legend=False))
    assert plain.shape == (64, 64, 3)
    red, green = plain[10, 10].astype(int), plain[55, 10].astype(int)
    assert np.abs(red - green).sum() > 60
    assert result.plot().height > 64
    assert result.plot(opacity=0, legend=False).getpixel((10, 10)) == (255, 0, 0)


def test_plot_takes_long_names_and_many_classes():
    names = [f"a rather long name of a thing number {i}" for i in range(300)]
    labels = np.arange(300, dtype=np.uint16).repeat(12).reshape(60, 60)
    image = np.zeros((60, 60, 3), np.uint8)
    many = Segmentation(
        labels=labels, logits=np.zeros((300, 1, 1), np.float32), names=names, image=image, speed={}
    )
    assert many.plot().width == 60


def test_saved_labels_are_read_back(result, tmp_path):
    path = result.save_labels(tmp_path / "labels.png")
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.labels)


def test_saved_uint16_labels_are_read_back(tmp_path):
    labels = np.array([[0, 300, 65535]], np.uint16)
    result = Segmentation(
        labels=labels,
        logits=np.zeros((301, 1, 1), np.float32),
        names=[f"n{i}" for i in range(301)],
        image=np.zeros((1, 3, 3), np.uint8),
        speed={},
    )
    with Image.open(result.save_labels(tmp_path / "labels.png")) as image:
        np.testing.assert_array_equal(np.asarray(image), labels)


@pytest.mark.parametrize("name", ["out.png", "out.jpg", "deep/er/out.webp"])
def test_save_writes_the_overlay(result, tmp_path, name):
    with Image.open(result.save(tmp_path / name)) as image:
        assert image.size == result.plot().size


def test_a_refused_save_leaves_no_file(result, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        result.save(tmp_path / "file" / "out.png")
    with pytest.raises(OutputError, match=r"\.png or \.jpg"):
        result.save(tmp_path / "out.xyz")
    with pytest.raises(OutputError, match="lossless"):
        result.save_labels(tmp_path / "out.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        result.save(tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_failed_write_keeps_the_old_file(result, tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match="No space left"):
        result.save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


def test_concurrent_writers_of_one_file_do_not_mix(fake, patches, tmp_path):
    path = tmp_path / "labels.png"
    results = [fake.predict(np.roll(patches, 8 * i, axis=1)) for i in range(4)]
    failures = []

    def write(result):
        for _ in range(20):
            result.save_labels(path)
            with Image.open(path) as image:
                if not any((np.asarray(image) == r.labels).all() for r in results):
                    failures.append(1)

    threads = [threading.Thread(target=write, args=(r,)) for r in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [p.name for p in tmp_path.iterdir()] == ["labels.png"]


@pytest.mark.parametrize(
    ("labels", "logits", "names", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((1, 1, 1), np.float32), ["a"], "the size of the image"),
        (np.zeros((64, 64), np.uint8), np.zeros((1, 1, 1), np.float32), ["a", "b"], r"expected \(2, h, w\)"),
        (np.zeros((64, 64), np.uint8), np.zeros(1, np.float32), ["a"], r"expected \(1, h, w\)"),
        (np.zeros((64, 64), np.int64), np.zeros((1, 1, 1), np.float32), ["a"], "int64; expected uint8"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(patches, labels, logits, names, message):
    with pytest.raises(PixelClipError, match=message):
        Segmentation(labels=labels, logits=logits, names=names, image=patches, speed={})


@pytest.fixture
def half_unknown():
    """Two classes and unknown pixels; the second class is not in the image."""
    labels = np.full((4, 6), 255, np.uint8)
    labels[:2] = 0
    return Segmentation(
        labels=labels,
        logits=np.zeros((2, 1, 1), np.float32),
        names=["cat", "sofa"],
        image=np.zeros((4, 6, 3), np.uint8),
        speed={},
    )


@pytest.mark.parametrize("label", ["cat", 0, np.uint8(0), np.int64(0)])
def test_a_mask_is_found_by_name_and_by_label(half_unknown, label):
    expected = np.zeros((4, 6), bool)
    expected[:2] = True
    np.testing.assert_array_equal(half_unknown.mask(label), expected)
    assert not half_unknown.mask(1).any()


@pytest.mark.parametrize("label", ["unknown", 255])
def test_the_mask_of_unknown_pixels(half_unknown, label):
    np.testing.assert_array_equal(half_unknown.mask(label), half_unknown.labels == 255)
    assert half_unknown.mask(label).sum() == 12


def test_a_mask_is_found_by_either_unicode_form():
    composed, decomposed = "K\u00e4tzchen", "Ka\u0308tzchen"
    arrays = {
        "labels": np.array([[0, 1]], np.uint8),
        "logits": np.zeros((2, 1, 1), np.float32),
        "image": np.zeros((1, 2, 3), np.uint8),
    }
    for name, asked in ((composed, composed), (composed, decomposed), (decomposed, decomposed)):
        result = Segmentation(names=[name, "wall"], speed={}, **arrays)
        np.testing.assert_array_equal(result.mask(asked), [[True, False]])


def test_a_class_named_unknown_is_found_by_its_name(half_unknown):
    renamed = dataclasses.replace(half_unknown, names=["unknown", "sofa"])
    np.testing.assert_array_equal(renamed.mask("unknown"), renamed.labels == 0)
    np.testing.assert_array_equal(renamed.mask(255), renamed.labels == 255)


@pytest.mark.parametrize("label", [2, -1, 254, 65535])
def test_a_label_out_of_range_is_refused(half_unknown, label):
    with pytest.raises(VocabularyError, match=rf"label {label}; expected 0 to 1 or 255"):
        half_unknown.mask(label)


@pytest.mark.parametrize("label", [None, 0.0, True, ["cat"]])
def test_other_types_are_refused(half_unknown, label):
    with pytest.raises(VocabularyError, match="expected a class name or a label"):
        half_unknown.mask(label)


def test_the_representation_is_one_line(half_unknown, fake, patches):
    assert repr(half_unknown) == "Segmentation(4×6, 2 classes: cat 50%, unknown 50%)"
    assert repr(fake.predict(patches)).startswith("Segmentation(64×64, 3 classes: red ")
    assert "\n" not in str(fake.predict(patches))


def test_names_cannot_be_changed(half_unknown):
    assert half_unknown.names == ("cat", "sofa")
    with pytest.raises(AttributeError):
        half_unknown.names.append("dog")
    with pytest.raises(dataclasses.FrozenInstanceError):
        half_unknown.names = ["dog"]


@pytest.fixture
def jpeg(patches):
    buffer = io.BytesIO()
    Image.fromarray(patches).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_image_of_a_file_is_converted_to_an_array_once(fake, jpeg):
    result = fake.predict(jpeg)
    assert isinstance(result.__dict__["image"], Image.Image)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda _: result.image, range(64)))
    assert all(image is result.image for image in images)
    np.testing.assert_array_equal(result.image, np.asarray(Image.open(io.BytesIO(jpeg))))


def test_a_result_can_be_copied_and_pickled(fake, jpeg):
    result = fake.predict(jpeg)
    copies = [pickle.loads(pickle.dumps(result)), dataclasses.replace(result, speed={})]
    for copy in copies:
        np.testing.assert_array_equal(copy.image, result.image)
        np.testing.assert_array_equal(copy.labels, result.labels)


def test_later_changes_of_a_pil_image_do_not_reach_the_result(fake, patches):
    image = Image.fromarray(patches)
    result = fake.predict(image)
    image.paste((1, 2, 3), (0, 0, 64, 64))
    np.testing.assert_array_equal(result.image, patches)


def test_names_are_found_in_any_case_and_unicode_form(fake, patches):
    result = fake.predict(patches)
    np.testing.assert_array_equal(result.mask("RED"), result.mask("red"))
    np.testing.assert_array_equal(result.mask("Unknown"), result.labels == 255)
    labels = np.array([[0, 1, 2]], np.uint8)
    odd = Segmentation(
        labels=labels,
        logits=np.zeros((3, 1, 1), np.float32),
        names=["Cat", "cat", "K\u00e4tzchen"],
        image=np.zeros((1, 3, 3), np.uint8),
        speed={},
    )
    assert odd.mask("cat").tolist() == [[False, True, False]]
    assert odd.mask("Cat").tolist() == [[True, False, False]]
    assert odd.mask("ka\u0308tzchen").tolist() == [[False, False, True]]


def test_a_tilde_is_the_home_folder(result, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert result.save("~/x/o.png") == tmp_path / "x" / "o.png"
    assert result.save_labels("~/x/l.png") == tmp_path / "x" / "l.png"
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["l.png", "o.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
