import dataclasses
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import OutputError, Segmentation, Segmenter, VocabularyError
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.preprocess import Draft, load_image


@pytest.fixture
def result(fake, patches):
    return fake.predict(patches)


def test_masks_areas_and_unknown(fake, result, patches):
    assert result.mask("red").sum() + result.mask("green").sum() + result.mask("blue").sum() == 64 * 64
    areas = result.areas()
    assert list(areas) == ["red", "green", "blue"]
    assert sum(areas.values()) == pytest.approx(1)
    assert areas["red"] == pytest.approx(0.5, abs=0.05)
    hidden = fake.predict(patches, threshold=2)
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


def test_saved_labels_read_back_as_they_are(result, tmp_path):
    path = result.save_labels(tmp_path / "labels.png")
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), result.labels)


def test_uint16_labels_read_back_as_they_are(tmp_path):
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


def test_saving_where_it_cannot_be_is_refused_and_leaves_nothing(result, tmp_path):
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


def test_writers_of_one_file_never_mix(fake, patches, tmp_path):
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


def test_is_checked_when_made(patches):
    with pytest.raises(ValueError, match="differ"):
        Segmentation(
            labels=np.zeros((2, 2), np.uint8),
            logits=np.zeros((1, 1, 1), np.float32),
            names=["a"],
            image=patches,
            speed={},
        )
    with pytest.raises(ValueError, match="2 names"):
        Segmentation(
            labels=np.zeros(patches.shape[:2], np.uint8),
            logits=np.zeros((1, 1, 1), np.float32),
            names=["a", "b"],
            image=patches,
            speed={},
        )


@pytest.fixture
def jpeg(patches):
    buffer = io.BytesIO()
    Image.fromarray(patches).save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_picture_of_a_file_becomes_an_array_once(fake, jpeg):
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


def test_the_callers_image_is_not_the_results(fake, patches):
    image = Image.fromarray(patches)
    result = fake.predict(image)
    image.paste((1, 2, 3), (0, 0, 64, 64))
    np.testing.assert_array_equal(result.image, patches)


def test_a_drafts_result_has_the_whole_picture(photo, colour_vocabulary):
    buffer = io.BytesIO()
    Image.fromarray(photo).resize((500, 400)).save(buffer, "JPEG")
    spec = InputSpec(height=64, width=64, multiple=8, fixed=False, keep_aspect=True)
    segmenter = Segmenter(
        FakeBackend(stride=8), spec, vocabulary=colour_vocabulary("red", "green"), draft=True
    )
    result = segmenter.predict(buffer.getvalue())
    assert isinstance(result.__dict__["image"], Draft)
    assert result.labels.shape == (400, 500)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(result)).image, load_image(buffer.getvalue()))
    np.testing.assert_array_equal(result.image, load_image(buffer.getvalue()))
