"""Reads the images of a bag: rosbag2 (sqlite3 and mcap, also compressed) and bags of ROS 1."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.ros.images import COMPRESSED_TYPE, IMAGE_TYPE
from pixelclip_sdk.ros.typestore import EXTRA, typestore
from pixelclip_sdk.support.files import is_file
from pixelclip_sdk.support.hints import did_you_mean
from pixelclip_sdk.support.nesting import refuse_nested
from pixelclip_sdk.support.packages import imported

__all__ = ["BagImage", "BagReader"]

_HINTS = {
    "metadata file": "A recording that broke off has no metadata: `ros2 bag reindex` makes it.",
    "not indexed": "A recording that broke off has no index: `rosbag reindex` makes it.",
    "end magic": "A recording that broke off has no end: `mcap recover` makes it.",
}


class BagImage(NamedTuple):
    """An image of a bag.

    Attributes:
        position: Number of the image among those of the chosen topics, from 0.
        topic: Its topic.
        time_ns: When it was recorded, in nanoseconds.
        message: ``sensor_msgs/Image`` or ``sensor_msgs/CompressedImage``.
    """

    position: int
    topic: str
    time_ns: int
    message: Any


class BagReader:
    """A bag whose image topics can be read. Use it as a context manager.

    Args:
        path: A folder of rosbag2, one of its files (``.mcap``, ``.db3``), or a ``.bag`` of ROS 1.

    Raises:
        ImageError: There is no bag, or it cannot be read.
        BackendUnavailableError: The package rosbags is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ros1 = path.suffix == ".bag"
        reader = imported("rosbags.rosbag1" if self._ros1 else "rosbags.rosbag2", EXTRA).Reader
        with self._errors():
            self._reader = reader(path)

    def __enter__(self) -> Self:
        metadata = self._path / "metadata.yaml"
        with self._errors():
            if not self._ros1 and is_file(metadata):
                refuse_nested(metadata.read_text(encoding="utf-8"))
            self._reader.open()
            for connection in self._reader.connections:  # As the metadata says; rosbags does not check it.
                named = isinstance(connection.topic, str) and isinstance(connection.msgtype, str)
                if not (named and isinstance(connection.msgcount, int)):
                    self._reader.close()
                    raise ValueError("the name, type or count of a topic has another type.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            self._reader.close()

    @property
    def topics(self) -> dict[str, tuple[str, int]]:
        """Topic → its type and its number of messages."""
        found: dict[str, tuple[str, int]] = {}
        for connection in self._reader.connections:
            count = found.get(connection.topic, ("", 0))[1]
            found[connection.topic] = connection.msgtype, count + connection.msgcount
        return found

    def choose(self, wanted: Sequence[str]) -> list[str]:
        """Return the image topics to read: those that are wanted, or the only one that there is.

        Raises:
            ImageError: A topic is not in the bag or has no images, or none is wanted and there are several.
        """
        topics = self.topics
        images = [topic for topic, (kind, _) in topics.items() if kind in (IMAGE_TYPE, COMPRESSED_TYPE)]
        listed = "".join(
            f"\n  {topic}  {kind.replace('/msg/', '/')}, {count} messages"
            for topic, (kind, count) in sorted(
                topics.items(), key=lambda item: (item[0] not in images, item[0])
            )
        )
        for topic in wanted:
            if topic not in topics:
                problem = f"{self._path} has no topic {topic}.{did_you_mean(topic, topics)}"
                raise ImageError(f"{problem} Its topics are:{listed or ' none'}")
            if topic not in images:
                problem = f"the topic {topic} has messages of {topics[topic][0].replace('/msg/', '/')}"
                raise ImageError(f"{problem}; expected images. The topics of the bag are:{listed}")
        if not wanted and len(images) != 1:
            problem = f"{len(images)} topics with images; choose with --topic" if images else "no images"
            raise ImageError(f"{self._path} has {problem}. Its topics are:{listed or ' none'}")
        return list(dict.fromkeys(wanted)) or images

    def count(self, topics: Sequence[str]) -> int:
        """The number of messages of some topics."""
        return sum(self.topics[topic][1] for topic in topics)

    def images(self, topics: Sequence[str], start: int = 0) -> Iterator[BagImage]:
        """Yield the images of some topics in the order of the recording.

        Args:
            topics: Topics with images.
            start: How many images to skip; they are not decoded.

        Raises:
            ImageError: The bag is damaged.
        """
        connections = [connection for connection in self._reader.connections if connection.topic in topics]
        store = _ros1_typestore() if self._ros1 else typestore()
        deserialize = store.deserialize_ros1 if self._ros1 else store.deserialize_cdr
        messages = self._reader.messages(connections=connections) if connections else iter(())
        position = 0
        while True:
            with self._errors():
                try:
                    connection, time_ns, raw = next(messages)
                except StopIteration:
                    return
                if position < start:
                    position += 1
                    continue
                message = deserialize(raw, connection.msgtype)
            yield BagImage(position, connection.topic, time_ns, message)
            position += 1

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn every error of rosbags into an ImageError about the bag."""
        try:
            yield
        except FileNotFoundError as error:
            if self._path.exists():
                reason = str(error).rstrip(".")
                raise ImageError(f"{self._path} is not a bag: {reason}. {_hint(reason)}".rstrip()) from error
            raise ImageError(f"{self._path} does not exist; expected a bag") from error
        except OSError as error:
            raise ImageError(f"{self._path} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # A damaged bag makes the library raise errors of many types.
            reason = str(error) or type(error).__name__
            raise ImageError(
                f"{self._path} cannot be read as a bag: {reason} {_hint(reason)}".rstrip()
            ) from error


def _hint(reason: str) -> str:
    return next((hint for part, hint in _HINTS.items() if part in reason), "")


def _ros1_typestore() -> Any:
    typesys = imported("rosbags.typesys", EXTRA)
    return typesys.get_typestore(typesys.Stores.ROS1_NOETIC)
