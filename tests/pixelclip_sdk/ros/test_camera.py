"""The node's logic, without rclpy."""

import doctest
from types import SimpleNamespace

import numpy as np
import pytest

from pixelclip_sdk import FakeBackend, ImageError, InputSpec, Segmenter, Vocabulary, VocabularyError
from pixelclip_sdk.ros import camera as camera_module
from pixelclip_sdk.ros import images
from pixelclip_sdk.ros import typestore as typestore_module
from pixelclip_sdk.ros.camera import OUTPUTS, Camera

pytest.importorskip("rosbags")
from pixelclip_sdk.ros.typestore import message_types


def image(pixels: np.ndarray, stamp: float = 1.0) -> SimpleNamespace:
    height, width = pixels.shape[:2]
    seconds = SimpleNamespace(sec=int(stamp), nanosec=round(stamp % 1 * 1e9))
    header = SimpleNamespace(stamp=seconds, frame_id="camera")
    return SimpleNamespace(
        header=header,
        encoding="rgb8",
        height=height,
        width=width,
        step=3 * width,
        is_bigendian=0,
        data=pixels.tobytes(),
    )


@pytest.fixture
def camera(fake) -> Camera:
    return Camera(fake, message_types())


def test_names_come_before_the_first_mask_and_again_with_new_words(camera, fake, patches, colour_vocabulary):
    assert [name for name, _ in camera.segment(image(patches), {"mask"})] == ["label_info", "mask"]
    assert [name for name, _ in camera.segment(image(patches), OUTPUTS)] == [*OUTPUTS]
    fake.set_classes(colour_vocabulary("blue", "yellow"), keep_ids=True)
    (first, info), (second, mask) = camera.segment(image(patches), ["mask"])
    assert (first, second) == ("label_info", "mask")
    names = {entry.class_id: entry.class_name for entry in info.class_map}
    assert names == {0: "yellow", 2: "blue"}  # Blue keeps its label; yellow takes the lowest free one.
    assert set(mask.data) <= {*names}


def test_names_are_sent_once(camera, patches):
    header = image(patches).header
    assert camera.label_info(header).header is header
    assert camera.label_info(header) is None
    assert [name for name, _ in camera.segment(image(patches), {"mask"})] == ["mask"]


def test_nothing_is_computed_while_nobody_subscribes(camera, patches):
    message = image(patches)
    message.data = None  # Decoding it would raise.
    assert camera.segment(message, []) == []
    assert camera.status()[:2] == (0, "nobody subscribes")
    assert camera.status().values["images segmented"] == "0"


def test_headers_are_those_of_the_image(camera, patches):
    message = image(patches, stamp=3.25)
    for _, made in camera.segment(message, OUTPUTS):
        assert made.header is message.header


def test_a_rotated_camera(fake, patches):
    turned = Camera(fake, message_types(), rotate=90)
    lying = np.ascontiguousarray(np.rot90(patches))  # Turned clockwise by 90 degrees it is upright again.
    (_, mask) = turned.segment(image(lying), {"mask"})[-1]
    upright = Camera(fake, message_types()).segment(image(patches), {"mask"})[-1][1]
    labels = np.rot90(upright.data.reshape(64, 64))
    assert len(np.unique(labels)) == 3
    assert np.array_equal(mask.data.reshape(64, 64), labels)


def test_labels_are_smoothed_over_time(fake):
    """A flash of green over a still picture of two colours: the second image has some of the first."""

    def camera(smooth):
        return Camera(fake, message_types(), smooth=smooth)

    red = np.zeros((64, 64, 3), np.uint8)
    red[:, :, 0], red[:, :, 1] = 124, 120
    green = red[:, :, [1, 0, 2]].copy()  # Hardly another picture, but another label.
    seen = {}
    for smooth in (None, 1.0):
        node = camera(smooth)
        masks = [node.segment(image(p, t), {"mask"})[-1][1] for p, t in ((red, 1.0), (green, 1.01))]
        seen[smooth] = [int(mask.data[0]) for mask in masks]
    assert seen == {None: [0, 1], 1.0: [0, 0]}


def test_bad_images_show_in_the_status_until_a_good_one_comes(camera, patches):
    bad = image(patches)
    bad.encoding = "32FC1"
    with pytest.raises(ImageError, match="32FC1"):
        camera.segment(bad, {"mask"})
    assert camera.status().level == 2
    assert "32FC1" in camera.status().message
    camera.segment(image(patches), {"mask"})
    status = camera.status()
    assert status[:2] == (0, "segmenting")
    assert status.values["images segmented"] == status.values["images that failed"] == "1"
    assert status.values["words"] == "red, green, blue"


def test_a_camera_that_is_silent(camera, patches, monkeypatch):
    assert camera.status()[:2] == (1, "no image came yet")
    camera.segment(image(patches), {"mask"})
    camera.segment(image(patches), {"mask"})
    later = camera_module.time.monotonic() + 10
    monkeypatch.setattr(camera_module.time, "monotonic", lambda: later)
    assert camera.status()[:2] == (1, "no image for 10 s")


def test_words_from_a_topic(lite, photo):
    segmenter = lite.with_classes("cat, blanket")
    node = Camera(segmenter, message_types())
    node.set_words("blanket, eye")
    (_, info), _ = node.segment(image(photo), {"mask"})
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [(0, "eye"), (1, "blanket")]
    with pytest.raises(VocabularyError, match=r"empty|no class"):
        node.set_words("")
    assert segmenter.vocabulary.names == ("eye", "blanket")


def test_more_words_than_labels(camera, fake):
    rows = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    many = Vocabulary(names=[f"thing {i}" for i in range(256)], embeddings=rows)
    with pytest.raises(VocabularyError, match="256 classes; a mask of mono8 has labels for at most 255"):
        camera.set_words(many)
    assert fake.vocabulary.names == ("red", "green", "blue")


def test_without_words(patches):
    spec = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)
    node = Camera(Segmenter(FakeBackend(stride=8), spec), message_types())
    assert node.label_info(None) is None
    with pytest.raises(VocabularyError, match="no classes are set"):
        node.segment(image(patches), {"mask"})
    assert node.status().level == 2


@pytest.mark.parametrize("module", [images, typestore_module, camera_module])
def test_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
