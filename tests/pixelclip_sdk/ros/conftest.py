"""Bags of every kind, made with rosbags' own writers."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED = "sensor_msgs/msg/CompressedImage"
START_NS = 1_700_000_000_123_456_789
STEP_NS = 33_333_333
LATER_NS = 2_000_000  # From an image's stamp to its recording.


def stamp_ns(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def make_message(store, pixels: np.ndarray, index: int, *, kind: str, frame_id: str = "camera", ros1=False):
    """An image message: `kind` is an encoding, ``"jpeg"`` or ``"png"``."""
    types = store.types
    sec, nanosec = divmod(START_NS + index * STEP_NS, 10**9)
    stamp = types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    seq = {"seq": index} if ros1 else {}
    header = types["std_msgs/msg/Header"](**seq, stamp=stamp, frame_id=frame_id)
    if kind in ("jpeg", "png"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, quality=95)
        return types[COMPRESSED](header=header, format=kind, data=np.frombuffer(file.getvalue(), np.uint8))
    height, width = pixels.shape[:2]
    data = pixels[:, :, ::-1] if kind == "bgr8" else pixels
    return types[IMAGE](
        header=header,
        height=height,
        width=width,
        encoding=kind,
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(data).ravel(),
    )


@pytest.fixture
def make_bag(tmp_path) -> Callable[..., Path]:
    """Writes a bag: topic → (kind, pictures). Other messages, of a clock, are between the images."""

    def write(
        topics: dict[str, tuple[str, list[np.ndarray]]], *, storage: str = "mcap", compression: str = "NONE"
    ) -> Path:
        from rosbags import rosbag1, rosbag2
        from rosbags.typesys import Stores, get_typestore

        ros1 = storage == "ros1"
        store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
        path = tmp_path / ("drive.bag" if ros1 else "drive")
        if ros1:
            writer = rosbag1.Writer(path)
        else:
            plugin = rosbag2.StoragePlugin[storage.upper()]
            writer = rosbag2.Writer(path, version=9, storage_plugin=plugin)
            writer.set_compression(rosbag2.CompressionMode[compression], rosbag2.CompressionFormat.ZSTD)
        serialize = store.serialize_ros1 if ros1 else store.serialize_cdr
        with writer:
            kinds = {
                topic: COMPRESSED if kind in ("jpeg", "png") else IMAGE for topic, (kind, _) in topics.items()
            }
            connections = {
                topic: writer.add_connection(topic, name, typestore=store) for topic, name in kinds.items()
            }
            clock = writer.add_connection(
                "/clock",
                "builtin_interfaces/msg/Time" if ros1 else "rosgraph_msgs/msg/Clock",
                typestore=store,
            )
            for index in range(max(len(pictures) for _, pictures in topics.values())):
                time_ns = START_NS + index * STEP_NS + LATER_NS
                for topic, (kind, pictures) in topics.items():
                    if index < len(pictures):
                        frame = topic.strip("/").replace("/", "_")
                        message = make_message(
                            store, pictures[index], index, kind=kind, frame_id=frame, ros1=ros1
                        )
                        writer.write(connections[topic], time_ns, serialize(message, kinds[topic]))
                moment = store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=index)
                if not ros1:
                    moment = store.types["rosgraph_msgs/msg/Clock"](clock=moment)
                writer.write(clock, time_ns, serialize(moment, clock.msgtype))
        return path

    return write


@pytest.fixture
def read_bag() -> Callable[[Path], list]:
    """Reads a rosbag2: (topic, time, message) in their order, the messages deserialised."""

    def read(path: Path) -> list:
        from rosbags.rosbag2 import Reader

        from pixelclip_sdk.ros.typestore import typestore

        with Reader(path) as reader:
            return [
                (connection.topic, time_ns, typestore().deserialize_cdr(raw, connection.msgtype))
                for connection, time_ns, raw in reader.messages()
            ]

    return read
