"""Results into messages: mask, confidence, overlay and the names of the labels.

They follow Nav2's semantic segmentation layer, which reads them: a mask of mono8 whose 255 is unknown, a
confidence of mono8, and ``vision_msgs/LabelInfo``. All have the header of the image, and its size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import VocabularyError
from pixelclip_sdk.ros.images import check_rotate
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.settings import Limits
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = [
    "MOST_CLASSES",
    "MessageTypes",
    "check_classes",
    "confidence_message",
    "label_info_message",
    "mask_message",
    "overlay_message",
]

UInt8Array = npt.NDArray[np.uint8]

MOST_CLASSES = 255
"""A mask of mono8 has the labels 0 to 254, and 255 for unknown pixels."""


class MessageTypes(NamedTuple):
    """The classes of messages: those of rclpy's packages, or `pixelclip_sdk.ros.typestore.message_types`.

    Attributes:
        image: ``sensor_msgs/Image``.
        label_info: ``vision_msgs/LabelInfo``.
        vision_class: ``vision_msgs/VisionClass``.
        data: Converts a one-dimensional uint8 array into the value of the field ``data``.
    """

    image: Callable[..., Any]
    label_info: Callable[..., Any]
    vision_class: Callable[..., Any]
    data: Callable[[UInt8Array], Any]


def check_classes(vocabulary: Vocabulary) -> None:
    """Raise VocabularyError if a mask of mono8 has too few labels for the words."""
    if len(vocabulary) > MOST_CLASSES:
        raise VocabularyError(
            f"got {len(vocabulary)} classes; a mask of mono8 has labels for at most {MOST_CLASSES}"
        )


def mask_message(result: Segmentation, header: Any, types: MessageTypes, rotate: int = 0) -> Any:
    """Make the mask: ``sensor_msgs/Image``, mono8, the label of each pixel, 255 for unknown ones.

    Args:
        result: What was found in the upright picture.
        header: The header of the image.
        types: The classes of messages.
        rotate: By how many degrees clockwise the image was turned for the result; the mask is turned back.

    Raises:
        VocabularyError: There are more than 255 classes.
    """
    if result.labels.dtype != np.uint8:
        raise VocabularyError(
            f"got {len(result.names)} classes; a mask of mono8 has labels for at most {MOST_CLASSES}"
        )
    return _image(_turned_back(result.labels.astype(np.uint8, copy=False), rotate), "mono8", header, types)


def confidence_message(result: Segmentation, header: Any, types: MessageTypes, rotate: int = 0) -> Any:
    """Make the confidence: ``sensor_msgs/Image``, mono8, 0 to 255 for a probability of 0 to 1.

    The arguments are those of `mask_message`.
    """
    levels = np.multiply(result.confidence, 255)
    levels = np.rint(levels, out=levels).astype(np.uint8)
    return _image(_turned_back(levels, rotate), "mono8", header, types)


def overlay_message(result: Segmentation, header: Any, types: MessageTypes, rotate: int = 0) -> Any:
    """Make the picture with its regions drawn in: ``sensor_msgs/Image``, bgr8.

    The arguments are those of `mask_message`. It is turned back like the mask, with its legend.
    """
    colours = np.asarray(result.plot(legend="inside"))
    return _image(_turned_back(colours, rotate)[:, :, ::-1], "bgr8", header, types)


def label_info_message(
    vocabulary: Vocabulary, header: Any, types: MessageTypes, min_confidence: Limits = None
) -> Any:
    """Make the names of the labels: ``vision_msgs/LabelInfo``.

    255, and labels that no pixel gets (`Vocabulary.unused`), are left out.

    Args:
        vocabulary: The words.
        header: Says from when on they are in effect.
        types: The classes of messages.
        min_confidence: The segmenter's limit, which becomes the field ``threshold``; 0 for none, and for
            limits of single classes.

    Raises:
        VocabularyError: There are more than 255 classes.
    """
    check_classes(vocabulary)
    classes = [
        types.vision_class(class_id=label, class_name=name)
        for label, name in enumerate(vocabulary.names)
        if label not in vocabulary.unused
    ]
    threshold = float(min_confidence) if isinstance(min_confidence, int | float) else 0.0
    return types.label_info(header=header, class_map=classes, threshold=threshold)


def _turned_back(upright: UInt8Array, rotate: int) -> UInt8Array:
    check_rotate(rotate)
    return np.rot90(upright, rotate // 90)  # Counter-clockwise.


def _image(pixels: UInt8Array, encoding: str, header: Any, types: MessageTypes) -> Any:
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    return types.image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=pixels.size // height,
        data=types.data(pixels.ravel()),
    )
