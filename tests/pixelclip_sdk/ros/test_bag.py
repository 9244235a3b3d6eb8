"""Bags in, of every kind; which topics."""

import numpy as np
import pytest

from pixelclip_sdk import ImageError
from pixelclip_sdk.image import to_array
from pixelclip_sdk.ros.bag import BagReader
from pixelclip_sdk.ros.images import decode_image

pytest.importorskip("rosbags")

PICTURES = [np.full((8, 12, 3), (10 * i, 200 - i, 90), np.uint8) for i in range(5)]
KINDS = [
    ("mcap", "NONE"),
    ("mcap", "STORAGE"),
    ("mcap", "MESSAGE"),
    ("mcap", "FILE"),
    ("sqlite3", "NONE"),
    ("sqlite3", "MESSAGE"),
    ("sqlite3", "FILE"),
    ("ros1", "NONE"),
]


@pytest.mark.parametrize(("storage", "compression"), KINDS)
@pytest.mark.parametrize("kind", ["bgr8", "png"])
def test_images_come_back_with_their_times(make_bag, storage, compression, kind):
    path = make_bag({"/front": (kind, PICTURES)}, storage=storage, compression=compression)
    with BagReader(path) as bag:
        assert bag.choose([]) == ["/front"]
        assert bag.count(["/front"]) == 5
        images = list(bag.images(["/front"]))
        later = list(bag.images(["/front"], start=3))
    assert [image.position for image in images] == [0, 1, 2, 3, 4]
    assert [image.position for image in later] == [3, 4]
    for image, picture in zip(images, PICTURES, strict=True):
        assert np.array_equal(to_array(decode_image(image.message)), picture)
        assert image.message.header.frame_id == "front"
    # Microseconds: bags of ROS 1 store them as such.
    stamps = [i.message.header.stamp.sec * 10**9 + i.message.header.stamp.nanosec for i in images]
    assert [image.time_ns - stamp for image, stamp in zip(images, stamps, strict=True)] == [2_000_000] * 5


@pytest.mark.parametrize("suffix", [".mcap", ".db3"])
def test_a_file_of_a_bag(make_bag, suffix):
    folder = make_bag({"/front": ("png", PICTURES)}, storage="mcap" if suffix == ".mcap" else "sqlite3")
    with BagReader(next(folder.glob(f"*{suffix}"))) as bag:
        assert len(list(bag.images(["/front"]))) == 5


def test_topics_are_in_the_order_of_the_recording(make_bag):
    path = make_bag({"/front": ("png", PICTURES), "/rear": ("bgr8", PICTURES[:2])})
    with BagReader(path) as bag:
        assert bag.choose(["/rear", "/front"]) == ["/rear", "/front"]
        topics = [image.topic for image in bag.images(["/rear", "/front"])]
    assert topics == ["/front", "/rear", "/front", "/rear", "/front", "/front", "/front"]


def test_unknown_topics_say_what_is_there(make_bag):
    path = make_bag({"/front": ("png", PICTURES), "/rear": ("bgr8", PICTURES[:2])})
    listed = (
        "\n  /front  sensor_msgs/CompressedImage, 5 messages\n  /rear  sensor_msgs/Image, 2 messages"
        "\n  /clock  rosgraph_msgs/Clock, 5 messages"
    )
    with BagReader(path) as bag:
        with pytest.raises(ImageError) as error:
            bag.choose(["/frnt"])
        assert (
            str(error.value) == f"{path} has no topic /frnt. Did you mean '/front'? Its topics are:{listed}"
        )
        with pytest.raises(ImageError, match="/clock has messages of rosgraph_msgs/Clock; expected images"):
            bag.choose(["/clock"])
        with pytest.raises(ImageError, match="2 topics with images; choose with --topic") as error:
            bag.choose([])
        assert listed in str(error.value)


def test_what_is_no_bag(tmp_path):
    with pytest.raises(ImageError, match="nothing does not exist; expected a bag"):
        BagReader(tmp_path / "nothing")
    with pytest.raises(ImageError, match=r"is not a bag: .*metadata.*ros2 bag reindex"):
        BagReader(tmp_path)
    (tmp_path / "video.mp4").touch()
    with pytest.raises(ImageError, match=r"cannot be read as a bag: .*'.mp4'"):
        BagReader(tmp_path / "video.mp4")


@pytest.mark.parametrize(("storage", "hint"), [("mcap", "mcap recover"), ("ros1", ""), ("sqlite3", "")])
def test_a_recording_that_broke_off(make_bag, storage, hint):
    path = make_bag({"/front": ("bgr8", PICTURES)}, storage=storage)
    file = next(path.glob("drive.*")) if path.is_dir() and storage != "ros1" else path
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with (
        pytest.raises(ImageError, match=f"{path.name} cannot be read as a bag: .*{hint}"),
        BagReader(path) as bag,
    ):
        list(bag.images(["/front"]))
