"""Messages that ROS would read: through CDR, with the definitions' hashes."""

import numpy as np
import pytest

from pixelclip_sdk import Vocabulary, VocabularyError
from pixelclip_sdk.ros.messages import (
    confidence_message,
    label_info_message,
    mask_message,
    overlay_message,
)

pytest.importorskip("rosbags")
from pixelclip_sdk.ros.typestore import LABEL_INFO_TYPE, message_types, typestore

IMAGE = "sensor_msgs/msg/Image"


@pytest.fixture
def header():
    types = typestore().types
    stamp = types["builtin_interfaces/msg/Time"](sec=12, nanosec=345)
    return types["std_msgs/msg/Header"](stamp=stamp, frame_id="front_camera")


def received(message, name=IMAGE):
    return typestore().deserialize_cdr(typestore().serialize_cdr(message, name), name)


def pixels(message) -> np.ndarray:
    return message.data.reshape(message.height, message.width, -1).squeeze()


def test_definitions_have_the_hashes_of_ros():
    """Those that ROS 2 Jazzy's generator wrote into its C sources; DDS compares them between nodes."""
    assert typestore().hash_rihs01(LABEL_INFO_TYPE) == (
        "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783"
    )
    assert typestore().hash_rihs01("vision_msgs/msg/VisionClass") == (
        "RIHS01_1e4a11f0fed50b5623cb8ff26ca0e37952a48a9c074d16f804b44e9164c2037a"
    )


def test_mask_and_confidence_have_the_images_header_and_size(lite, photo, header):
    result = lite.predict(photo, min_confidence=0.6)
    mask = received(mask_message(result, header, message_types()))
    assert (mask.header.stamp.sec, mask.header.stamp.nanosec, mask.header.frame_id) == (
        12,
        345,
        "front_camera",
    )
    assert (mask.height, mask.width, mask.encoding, mask.step) == (300, 451, "mono8", 451)
    assert np.array_equal(pixels(mask), result.labels)
    assert 255 in mask.data  # Unknown.
    assert 0 in mask.data
    sure = received(confidence_message(result, header, message_types()))
    assert (sure.encoding, sure.header.frame_id) == ("mono8", "front_camera")
    assert np.abs(pixels(sure) / 255 - result.confidence).max() < 0.003


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_masks_of_rotated_cameras_are_turned_back(fake, patches, header, rotate):
    """64×64, red above. The camera is mounted so that its image must be turned by `rotate` clockwise."""
    upright = fake.predict(patches)
    mask = pixels(received(mask_message(upright, header, message_types(), rotate)))
    assert np.array_equal(np.rot90(mask, -rotate // 90), upright.labels)
    overlay = received(overlay_message(upright, header, message_types(), rotate))
    drawn = np.asarray(upright.plot(legend="inside"))
    assert overlay.encoding == "bgr8"
    assert np.array_equal(np.rot90(pixels(overlay), -rotate // 90)[:, :, ::-1], drawn)


def test_sizes_of_turned_masks(fake, patches, header):
    result = fake.predict(np.ascontiguousarray(patches[:48]))
    mask = mask_message(result, header, message_types(), 90)
    assert (mask.height, mask.width, mask.step) == (64, 48, 48)


def test_label_info_names_what_a_mask_may_have(fake, colour_vocabulary, header):
    fake.set_classes(colour_vocabulary("blue", "red"), keep_ids=True)  # Green, label 1, has no word any more.
    info = received(label_info_message(fake.vocabulary, header, message_types(), 0.25), LABEL_INFO_TYPE)
    assert [(entry.class_id, entry.class_name) for entry in info.class_map] == [(0, "red"), (2, "blue")]
    assert info.threshold == 0.25
    assert info.header.frame_id == "front_camera"
    for limits in (None, {"red": 0.5}):
        assert label_info_message(fake.vocabulary, header, message_types(), limits).threshold == 0


def test_more_classes_than_mono8_has_labels_for(fake, patches, header):
    rows = np.random.default_rng(0).normal(size=(256, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fake.set_classes(Vocabulary(names=[f"thing {i}" for i in range(256)], embeddings=rows))
    with pytest.raises(VocabularyError, match="256 classes; a mask of mono8 has labels for at most 255"):
        label_info_message(fake.vocabulary, header, message_types())
    with pytest.raises(VocabularyError, match="256 classes"):
        mask_message(fake.predict(patches), header, message_types())
