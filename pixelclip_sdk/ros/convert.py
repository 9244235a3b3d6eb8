"""Segments the images of a bag into another bag, with the topics of the node."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from pixelclip_sdk._version import __version__
from pixelclip_sdk.errors import ImageError, OutputError
from pixelclip_sdk.image import Picture
from pixelclip_sdk.ros.bag import BagImage, BagReader
from pixelclip_sdk.ros.images import IMAGE_TYPE, check_rotate, decode_image
from pixelclip_sdk.ros.messages import (
    check_classes,
    confidence_message,
    label_info_message,
    mask_message,
    overlay_message,
)
from pixelclip_sdk.ros.parts import PartsWriter
from pixelclip_sdk.ros.typestore import LABEL_INFO_TYPE, message_types
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.settings import plain_limits
from pixelclip_sdk.support.files import same

__all__ = ["BagProgress", "segment_bag"]

_log = logging.getLogger(__name__)

PART_S = 30.0
"""Seconds of work that a kill may lose."""


class BagProgress(NamedTuple):
    """How far `segment_bag` is.

    Attributes:
        images: Images that are in the new bag.
        damaged: Images that could not be decoded and are not in it.
        total: Images of the chosen topics.
        resumed: How many of the images earlier runs have done.
        topics: The chosen topics.
    """

    images: int
    damaged: int
    total: int
    resumed: int
    topics: tuple[str, ...]


def segment_bag(
    segmenter: Segmenter,
    source: Path,
    out: Path,
    *,
    topics: Sequence[str] = (),
    overlay: bool = False,
    rotate: int = 0,
    part_s: float = PART_S,
    report: Callable[[BagProgress], None] = lambda _: None,
) -> BagProgress:
    """Segment the images of a bag.

    Each image is segmented on its own, as `Segmenter.predict` does, so it does not matter where an earlier
    run was killed. The new bag has the times and the headers of the images. It is a rosbag2 in mcap, in files
    of at most `part_s` seconds of work. With several topics, the new ones are below them.

    Args:
        segmenter: The model, with its words.
        source: A bag of ROS 1 or ROS 2.
        out: The folder of the new bag; it appears when everything is done. After a kill, the same call goes
            on from ``OUT.partial``.
        topics: Topics with images; none for the only one that there is.
        overlay: Whether to write overlays too, of about a megabyte each.
        rotate: Degrees by which images must be turned clockwise to be upright: 0, 90, 180 or 270.
        part_s: Seconds of work after which what was done is made durable.
        report: Called after each image.

    Raises:
        ImageError: The bag cannot be read, has no such topic, or none of its images can be decoded.
        OutputError: `out` exists or cannot be written, or ``OUT.partial`` is of another run.
        VocabularyError: There are no words, or more than 255.
        BackendUnavailableError: The package rosbags is not installed.
    """
    check_rotate(rotate)
    check_classes(segmenter.vocabulary)
    if same(source, out):
        raise OutputError(f"{out} is the input; name another folder for the result")
    with BagReader(source) as bag:
        chosen = bag.choose(topics)
        names = {topic: f"{topic if len(chosen) > 1 else ''}/segmentation" for topic in chosen}
        made = ("mask", "confidence", "overlay") if overlay else ("mask", "confidence")
        written: dict[str, tuple[str, bool]] = {}
        for name in names.values():
            written[f"{name}/label_info"] = LABEL_INFO_TYPE, True
            written |= {f"{name}/{kind}": (IMAGE_TYPE, False) for kind in made}
        run = {
            "input": _files(source),
            "topics": [*written, *chosen],
            "rotate": rotate,
            **_settings(segmenter),
        }
        with closing(PartsWriter(out, written, run)) as writer:
            task = _Task(segmenter, bag, writer, names, made, rotate)
            progress = task.run(part_s, report)
            writer.finish()
    return progress


class _Done(NamedTuple):
    """An image on its way through the stream, and what came before it."""

    image: BagImage
    damaged: int


class _Task:
    """The images of the chosen topics, from where an earlier run ended.

    Whatever ends a run, Ctrl-C or kill -9, what is durable is what the last `commit` wrote.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        bag: BagReader,
        writer: PartsWriter,
        names: dict[str, str],
        made: tuple[str, ...],
        rotate: int,
    ) -> None:
        self._segmenter, self._bag, self._writer = segmenter, bag, writer
        self._names, self._made, self._rotate = names, made, rotate
        self._types = message_types()
        self._read = writer.done.get("read", 0)
        self._damaged = writer.done.get("damaged", 0)
        self._failure: ImageError | None = None
        counts = writer.counts
        self._named = {name for name in names.values() if counts[f"{name}/label_info"]}

    def run(self, part_s: float, report: Callable[[BagProgress], None]) -> BagProgress:
        resumed = self._read - self._damaged
        images, total = resumed, self._bag.count([*self._names])
        topics = tuple(self._names)
        committed = time.monotonic()
        stream = self._segmenter.stream(self._frames(), buffer="all", smooth=None)
        with closing(stream) as results:
            for result in results:
                assert result.frame is not None  # Results of streams have it.
                done = result.frame.id
                assert isinstance(done, _Done)
                self._write(result, done.image)
                images += 1
                if time.monotonic() - committed > part_s:
                    self._writer.commit({"read": done.image.position + 1, "damaged": done.damaged})
                    committed = time.monotonic()
                report(BagProgress(images, done.damaged, total, resumed, topics))
        if not images:
            raise self._failure or ImageError(f"the topics {', '.join(topics)} have no messages")
        self._writer.commit({"read": self._read, "damaged": self._damaged})
        return BagProgress(images, self._damaged, total, resumed, topics)

    def _frames(self) -> Iterator[tuple[float, Picture, _Done]]:
        """Decode the images, in the reading thread of the stream."""
        for image in self._bag.images([*self._names], self._read):
            try:
                picture = decode_image(image.message, self._rotate)
            except ImageError as error:
                self._failure = self._failure or ImageError(f"{image.topic}, image {image.position}: {error}")
                self._damaged += 1
                _log.warning("%s, image %d: %s. Skipped.", image.topic, image.position, error)
            else:
                yield image.time_ns * 1e-9, picture, _Done(image, self._damaged)
            self._read = image.position + 1

    def _write(self, result: Segmentation, image: BagImage) -> None:
        name, header = self._names[image.topic], image.message.header
        if name not in self._named:
            limit = self._segmenter.min_confidence
            info = label_info_message(self._segmenter.vocabulary, header, self._types, limit)
            self._writer.write(f"{name}/label_info", image.time_ns, info)
            self._named.add(name)
        for kind in self._made:
            message = _MAKERS[kind](result, header, self._types, self._rotate)
            self._writer.write(f"{name}/{kind}", image.time_ns, message)


_MAKERS = {"mask": mask_message, "confidence": confidence_message, "overlay": overlay_message}


def _files(source: Path) -> list[list[Any]]:
    """Name, size and time of change of the files of a bag: another one has others."""
    files = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _settings(segmenter: Segmenter) -> dict[str, Any]:
    """What decides the labels besides the images."""
    bundle, background = segmenter.bundle, segmenter.background
    return {
        "version": __version__,
        "model": bundle.image_hash if bundle else "",
        "classes": [*segmenter.vocabulary.names, _hash(segmenter.vocabulary.embeddings.tobytes())],
        "background": background and _hash(background.embeddings.tobytes()),
        "threshold": segmenter.threshold,
        "min_confidence": plain_limits(segmenter.min_confidence),
        "refine": segmenter.refine,
        "tiles": segmenter.tiles,
        "backend": segmenter.backend,
    }


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
