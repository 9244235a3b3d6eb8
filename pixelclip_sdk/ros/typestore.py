"""The messages as the package `rosbags` defines them, without ROS."""

import functools
from typing import Any

from pixelclip_sdk.ros.messages import MessageTypes
from pixelclip_sdk.support.packages import imported

__all__ = ["EXTRA", "LABEL_INFO_TYPE", "message_types", "typestore"]

EXTRA = '"pixelclip-sdk[ros]"'

LABEL_INFO_TYPE = "vision_msgs/msg/LabelInfo"
# vision_msgs is not among the definitions of rosbags. A test compares the hashes with those of ROS.
_DEFINITIONS = {
    LABEL_INFO_TYPE: "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n",
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
}


@functools.cache
def typestore() -> Any:
    """The definitions of ROS 2 Jazzy, with ``vision_msgs/LabelInfo``: a ``rosbags`` typestore.

    Raises:
        BackendUnavailableError: The package rosbags is not installed.
    """
    typesys = imported("rosbags.typesys", EXTRA)
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    for name, definition in _DEFINITIONS.items():
        store.register(typesys.get_types_from_msg(definition, name))
    return store


def message_types() -> MessageTypes:
    """The classes of `typestore`.

    Raises:
        BackendUnavailableError: The package rosbags is not installed.

    Examples:
        >>> from pixelclip_sdk import Segmenter
        >>> from pixelclip_sdk.ros.messages import label_info_message
        >>> header = None  # That of an image.
        >>> with Segmenter.from_pretrained(classes="road, sky") as segmenter:
        ...     message = label_info_message(segmenter.vocabulary, header, message_types())
        >>> [(entry.class_id, entry.class_name) for entry in message.class_map]
        [(0, 'road'), (1, 'sky')]
    """
    types = typestore().types
    return MessageTypes(
        image=types["sensor_msgs/msg/Image"],
        label_info=types[LABEL_INFO_TYPE],
        vision_class=types["vision_msgs/msg/VisionClass"],
        data=lambda values: values,
    )
