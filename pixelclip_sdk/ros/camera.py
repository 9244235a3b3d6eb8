"""What a node does with the images of a camera: everything but rclpy."""

import statistics
import time
from collections import deque
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.ros.images import check_rotate, decode_image
from pixelclip_sdk.ros.messages import (
    MessageTypes,
    check_classes,
    confidence_message,
    label_info_message,
    mask_message,
    overlay_message,
)
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.smoothing import Smooth, Smoother
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary

__all__ = ["OUTPUTS", "Camera", "Status"]

Output = Literal["mask", "confidence", "overlay"]

_MAKERS = {"mask": mask_message, "confidence": confidence_message, "overlay": overlay_message}
OUTPUTS = tuple(_MAKERS)
"""The messages that an image can become."""

_RECENT = 100  # Images of which the status has the rate and the median time.
_SILENT_S = 2.0  # Without an image for so long, the status is a warning.


class Status(NamedTuple):
    """The state of a camera, as ``diagnostic_msgs/DiagnosticStatus`` has it.

    Attributes:
        level: 0 well, 1 warning, 2 error.
        message: One line for a person.
        values: More facts.
    """

    level: int
    message: str
    values: dict[str, str]


class Camera:
    """Segments the images of one camera, one at a time, as the callbacks of a single-threaded node do.

    Args:
        segmenter: The model; this camera sets its words.
        types: The classes of messages.
        rotate: Degrees by which images must be turned clockwise to be upright: 0, 90, 180 or 270.
        smooth: Seconds over which labels are averaged, so that they do not flicker; see `Segmenter.stream`.

    Raises:
        PixelClipError: A setting is not one of its values.

    Examples:
        >>> from pixelclip_sdk import Segmenter
        >>> from pixelclip_sdk.ros.typestore import message_types
        >>> segmenter = Segmenter.from_pretrained(classes="road, sky")
        >>> camera = Camera(segmenter, message_types())
        >>> camera.label_info(header=None).class_map[1].class_name  # To publish before the first mask.
        'sky'
        >>> camera.label_info(header=None)  # Nothing new.
        >>> camera.status().message
        'no image came yet'
        >>> segmenter.close()
    """

    def __init__(
        self, segmenter: Segmenter, types: MessageTypes, *, rotate: int = 0, smooth: Smooth = "auto"
    ) -> None:
        check_rotate(rotate)
        self._segmenter, self._types, self._rotate = segmenter, types, rotate
        self._smoother = Smoother(smooth)
        self._words: Vocabulary | None = None  # Those of the last LabelInfo.
        self._started: float | None = None  # Of the last image that came.
        self._error = ""
        self._failed = 0
        self._idle = False
        # When each of the last images was done, and how many milliseconds it took.
        self._done: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self._segmented = 0

    def set_words(self, words: Classes | Vocabulary) -> None:
        """Change the words. Those that stay keep their labels.

        Args:
            words: ``"cat, sofa"``, or the name of a list; see `Segmenter.set_classes`. No file is read.

        Raises:
            VocabularyError: The words cannot be used, or are more than 255. The words set before stay.
        """
        vocabulary = self._segmenter.embed(words)
        check_classes(vocabulary)
        self._segmenter.set_classes(vocabulary, keep_ids=True)

    def label_info(self, header: Any) -> Any | None:
        """Make the LabelInfo of the words, if there are words that the last one had not; else return None.

        Args:
            header: The header of the message.
        """
        try:
            vocabulary = self._segmenter.vocabulary
        except PixelClipError:  # None are set yet.
            return None
        if vocabulary is self._words:
            return None
        message = label_info_message(vocabulary, header, self._types, self._segmenter.min_confidence)
        self._words = vocabulary
        return message

    def segment(self, message: Any, wanted: Collection[Output]) -> list[tuple[str, Any]]:
        """Turn an image into the messages that somebody wants, in the order in which to publish them.

        Args:
            message: An image; see `decode_image`.
            wanted: Some of `OUTPUTS`: those that somebody has subscribed to. If none is, nothing is computed.

        Returns:
            Names and messages: ``"label_info"`` first, if the words are new; then those that are wanted.

        Raises:
            PixelClipError: The image cannot be used, or no words are set. `status` then tells of it.
        """
        self._started, self._idle = time.monotonic(), not wanted
        if not wanted:
            return []
        try:
            messages = self._segment(message, wanted)
        except PixelClipError as error:
            self._failed += 1
            self._error = str(error)
            raise
        now = time.monotonic()
        self._done.append((now, (now - self._started) * 1e3))
        self._segmented += 1
        self._error = ""
        return messages

    def _segment(self, message: Any, wanted: Collection[Output]) -> list[tuple[str, Any]]:
        picture = decode_image(message, self._rotate)
        stamp, header = message.header.stamp, message.header
        time_s = stamp.sec + stamp.nanosec * 1e-9
        result = self._segmenter.predict(picture, smoother=self._smoother, time_s=time_s)
        names = self.label_info(header)
        messages = [] if names is None else [("label_info", names)]
        for name, make in _MAKERS.items():
            if name in wanted:
                messages.append((name, make(result, header, self._types, self._rotate)))
        return messages

    def status(self) -> Status:
        """The state, for diagnostics."""
        now = time.monotonic()
        values = {
            "images segmented": str(self._segmented),
            "images that failed": str(self._failed),
            "words": ", ".join(_used(self._words)) if self._words else "",
        }
        if len(self._done) > 1:
            seconds = now - self._done[0][0]
            values["images a second"] = f"{(len(self._done) - 1) / seconds:.1f}"
        if self._done:
            values["median ms an image"] = f"{statistics.median(ms for _, ms in self._done):.1f}"
        if self._error:
            return Status(2, self._error, values)
        if self._started is None:
            return Status(1, "no image came yet", values)
        if (silent := now - self._started) > _SILENT_S:
            return Status(1, f"no image for {silent:.0f} s", values)
        return Status(0, "nobody subscribes" if self._idle else "segmenting", values)


def _used(words: Vocabulary) -> list[str]:
    return [name for label, name in enumerate(words.names) if label not in words.unused]
