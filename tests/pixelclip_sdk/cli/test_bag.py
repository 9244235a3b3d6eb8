"""`pixelclip bag`, with the bundled model."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.cli.main import main

COMMAND = ["bag", "drive", "out", "--classes", "cat, sofa, grass", "--threads", "1"]


@pytest.fixture
def bag(tmp_path, photo, monkeypatch):
    """Three JPEGs of a cat, on a topic beside another one that has no images."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2")
    from pixelclip_sdk.ros.typestore import typestore

    monkeypatch.chdir(tmp_path)
    types, name = typestore().types, "sensor_msgs/msg/CompressedImage"
    with rosbag2.Writer("drive", version=9, storage_plugin=rosbag2.StoragePlugin.MCAP) as writer:
        images = writer.add_connection("/camera/image_raw/compressed", name, typestore=typestore())
        writer.add_connection("/clock", "rosgraph_msgs/msg/Clock", typestore=typestore())
        for i in range(3):
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(photo[:, i : 440 + i])).save(file, "JPEG")
            stamp = types["builtin_interfaces/msg/Time"](sec=7, nanosec=i)
            message = types[name](
                header=types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera"),
                format="jpeg",
                data=np.frombuffer(file.getvalue(), np.uint8),
            )
            writer.write(images, 7 * 10**9 + i, typestore().serialize_cdr(message, name))
    return tmp_path / "drive"


def test_a_bag(bag, lite, capsys):
    from pixelclip_sdk.ros.bag import BagReader

    assert main([*COMMAND, "--overlay"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("3 images of /camera/image_raw/compressed → out; ")
    with BagReader(bag.with_name("out")) as result:
        assert {topic: count for topic, (_, count) in result.topics.items()} == {
            "/segmentation/label_info": 1,
            "/segmentation/mask": 3,
            "/segmentation/confidence": 3,
            "/segmentation/overlay": 3,
        }
        masks = [image.message for image in result.images(["/segmentation/mask"])]
    with BagReader(bag) as source:
        images = [image.message for image in source.images(["/camera/image_raw/compressed"])]
    for mask, image in zip(masks, images, strict=True):
        expected = lite.predict(bytes(image.data)).labels
        assert len(np.unique(expected)) > 1
        assert np.array_equal(mask.data.reshape(300, 440), expected)
    assert main(COMMAND) == 1
    assert "out exists; name another folder, or remove it" in capsys.readouterr().err


@pytest.mark.usefixtures("bag")
def test_topics_that_are_not_there(capsys):
    assert main([*COMMAND, "--topic", "/camera/image_raw"]) == 1
    error = capsys.readouterr().err
    assert "has no topic /camera/image_raw. Did you mean '/camera/image_raw/compressed'?" in error
    assert "  /camera/image_raw/compressed  sensor_msgs/CompressedImage, 3 messages\n" in error


def test_without_rosbags(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "rosbags", None)
    assert main(COMMAND) == 1
    assert 'Install it: pip install "pixelclip-sdk[ros]"' in capsys.readouterr().err


def test_wrong_turns(capsys):
    with pytest.raises(SystemExit) as error:
        main([*COMMAND, "--rotate", "45"])
    assert error.value.code == 2
    assert "--rotate" in capsys.readouterr().err
