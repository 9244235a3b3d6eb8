"""Where frames come from: video files, cameras, network streams, folders, arrays in memory.

PyAV decodes video; it is the extra `video`. Folders and arrays need nothing beyond the base install.
"""

import functools
import logging
import os
import re
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sized
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Union, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.errors import BackendUnavailableError, ImageError
from pixelclip_sdk.image import ChannelOrder, ImageInput, load_image
from pixelclip_sdk.support.files import is_file, is_folder
from pixelclip_sdk.support.images import find_images

__all__ = ["Frame", "FrameSource", "Reopenable", "SourceInput", "import_av", "open_source"]

SourceInput = Union[str, os.PathLike[str], int, Iterable[ImageInput], "FrameSource"]
"""A video file, a folder of images, the number or the device of a camera, an address, pictures, or what
`open_source` opened."""

_log = logging.getLogger(__name__)

# Always now: nothing can be read again.
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp")
_EXPECTED = "a video file, a folder, a camera's number, an address or an iterable of pictures"
# Seconds without an answer after which a camera or a server counts as gone.
_TIMEOUT_S = 10.0
# Share of its frames below which a file counts as cut off; their number is often an estimate.
_WHOLE = 0.9


class Frame(NamedTuple):
    """One decoded frame.

    Attributes:
        image: `(H, W, 3)` uint8 RGB, upright; nobody else writes to it.
        time_s: Seconds since the source's first frame; None if the source has no clock.
        decode_ms: What decoding took, without waiting for the source.
        damaged: Pieces of the source so far that could not be decoded.
    """

    image: npt.NDArray[np.uint8]
    time_s: float | None
    decode_ms: float
    damaged: int


@runtime_checkable
class FrameSource(Protocol):
    """An opened source: iterate over its frames once, then close it.

    Attributes:
        name: For messages.
        live: Whether frames that nobody reads are lost anyway.
        fps: Frames a second, if the source says so.
        count: Number of frames, if known; a container's own word, so a hint.
    """

    name: str
    live: bool
    fps: Fraction | None
    count: int | None

    def __iter__(self) -> Generator[Frame, None, None]: ...

    def close(self) -> None:
        """Release the file or the camera. Closing twice is harmless."""


@runtime_checkable
class Reopenable(FrameSource, Protocol):
    """A source that can be opened again when it is gone: a camera or an address."""

    def reopened(self) -> FrameSource:
        """The same source, opened anew.

        Raises:
            ImageError: It is not there.
        """


def open_source(source: SourceInput, channel_order: ChannelOrder = "rgb") -> FrameSource:
    """Open whatever frames come from.

    Args:
        source: A video file, a folder of images (in natural order), the number of a camera or its
            ``/dev/videoN``, an address (``rtsp://…``, ``http://…``), or an iterable of pictures, e.g. a
            generator of uint8 arrays `(H, W, 3)`. An opened source is returned as it is.
        channel_order: Order of the channels of an iterable's arrays. Files know their own.

    Raises:
        ImageError: There is no such file, camera or address, or it has no frames to give.
        BackendUnavailableError: It takes PyAV, which is not installed.
    """
    if channel_order not in ("rgb", "bgr"):
        raise ImageError(f'channel_order is {channel_order!r}; expected "rgb" or "bgr"')
    if isinstance(source, bool | bytes | bytearray | Image.Image) or (
        isinstance(source, np.ndarray) and source.ndim < 4
    ):
        raise ImageError(f"got {type(source).__name__}; expected {_EXPECTED}. For one picture call predict.")
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, int):
        return _camera(source)
    if isinstance(source, str | os.PathLike):
        text = os.fspath(source)
        scheme, colon, _ = text.partition("://")
        if colon:
            return _AvSource(text, live=scheme.lower() in _LIVE_SCHEMES, network=True)
        if re.fullmatch(r"/dev/video\d+", text):
            return _AvSource(text, live=True, format="v4l2")
        path = Path(text)
        if is_folder(path):
            return _FolderSource(path)
        if not is_file(path):
            raise ImageError(
                f"{text[:300]} does not exist, or cannot be reached; expected a video file, a folder, "
                "a camera or an address"
            )
        return _AvSource(text, live=False)
    if isinstance(source, Iterable):
        return _IterableSource(source, channel_order)
    raise ImageError(f"got {type(source).__name__}; expected {_EXPECTED}")


def import_av() -> Any:
    """The package `av`.

    Raises:
        BackendUnavailableError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise BackendUnavailableError(
            "video takes PyAV, which is not installed. Install it: "
            'pip install "pixelclip-sdk[video]". Folders and arrays work without it.'
        ) from error
    return av


def _camera(number: int) -> FrameSource:
    if number < 0:
        raise ImageError(f"camera {number}; expected a number from 0")
    if sys.platform.startswith("linux"):
        return _AvSource(f"/dev/video{number}", live=True, format="v4l2")
    if sys.platform == "darwin":
        return _AvSource(str(number), live=True, format="avfoundation")
    raise ImageError(
        "cameras go by number on Linux and macOS only. Here pass an iterable of arrays, "
        "e.g. a generator around OpenCV's VideoCapture, with channel_order='bgr'."
    )


class _AvSource:
    """Video through PyAV.

    A packet that cannot be decoded is skipped and counted, and so is a frame that the decoder itself marks
    as corrupt: a video with a scratch is worth more than an error. A source that breaks off is an error.
    """

    def __init__(self, target: str, *, live: bool, format: str | None = None, network: bool = False) -> None:
        self._av = import_av()
        self._again = functools.partial(_AvSource, target, live=live, format=format, network=network)
        # Passwords do not belong in messages: before the host, with @ and / in them as well, or as queries.
        self.name = re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//", target)) if network else target
        timeout = (_TIMEOUT_S, _TIMEOUT_S) if live or network else None
        # By default RTSP asks for UDP, which loses packets, and with them whole seconds of picture.
        options = {"rtsp_transport": "tcp"} if target.lower().startswith("rtsp") else {}
        try:
            self._container = self._av.open(target, format=format, options=options, timeout=timeout)
        except (self._av.FFmpegError, ValueError) as error:
            what = "a camera" if format else "a video"
            raise ImageError(
                f"{self.name} cannot be opened as {what}: {getattr(error, 'strerror', None) or error}. "
                "Is it there, complete, and not in use?"
            ) from error
        if not self._container.streams.video:
            self._container.close()
            raise ImageError(f"{self.name} has no video in it; expected a video file")
        self._stream = self._container.streams.video[0]
        # A live stream has no end that the container could know of.
        self.live = live or (network and self._container.duration is None)
        self.fps = self._stream.average_rate
        self.count = (self._stream.frames or self._estimate()) if not self.live else None

    def __iter__(self) -> Generator[Frame, None, None]:
        # One for all frames: setting it up costs more than converting a small frame.
        reformatter = self._av.video.reformatter.VideoReformatter()
        first: float | None = None
        damaged = given = 0
        for packet in self._packets():
            clock = time.perf_counter()
            try:
                pictures = packet.decode()
            except self._av.FFmpegError:
                damaged += 1
                continue
            for picture in pictures:
                if picture.is_corrupt:
                    damaged += 1
                    continue
                image = reformatter.reformat(picture, format="rgb24").to_ndarray()
                if quarters := round(picture.rotation / 90) % 4:  # Anticlockwise; telephones write them.
                    image = np.ascontiguousarray(np.rot90(image, quarters))
                if first is None:
                    first = picture.time
                time_s = None if picture.time is None or first is None else picture.time - first
                yield Frame(image, time_s, (time.perf_counter() - clock) * 1e3, damaged)
                given += 1
                clock = time.perf_counter()
        if self.count and given + damaged < _WHOLE * self.count:
            _log.warning(
                "%s: it ended after %d of about %d frames; is it complete?", self.name, given, self.count
            )
        if not given:
            raise ImageError(f"nothing of it could be decoded ({damaged} damaged pieces). Is it complete?")

    def close(self) -> None:
        self._container.close()

    def reopened(self) -> FrameSource:
        return self._again()

    def _packets(self) -> Iterator[Any]:
        while True:
            try:
                yield from self._container.demux(self._stream)
                return
            except self._av.BlockingIOError:  # Some cameras say so instead of waiting.
                time.sleep(0.002)
            except self._av.FFmpegError as error:
                raise ImageError(f"it breaks off: {error.strerror or error}") from error

    def _estimate(self) -> int | None:
        """Number of frames, for containers that do not store it."""
        if self._container.duration is None or self.fps is None:
            return None
        return round(float(self._container.duration / self._av.time_base * self.fps))


class _FolderSource:
    """The image files of a folder, in natural order: 2 before 10."""

    live: bool = False
    fps: Fraction | None = None

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._files = find_images(folder)
        self.count: int | None = len(self._files)

    def __iter__(self) -> Generator[Frame, None, None]:
        for file in self._files:
            clock = time.perf_counter()
            image = load_image(file)
            yield Frame(image, None, (time.perf_counter() - clock) * 1e3, 0)

    def close(self) -> None:
        pass


class _IterableSource:
    """Pictures that a program gives.

    Attributes:
        raised: What the program's own iterator raised, which is not ours to change.
    """

    live: bool = False
    fps: Fraction | None = None

    def __init__(self, pictures: Iterable[ImageInput], channel_order: ChannelOrder) -> None:
        self.name = f"iterable ({type(pictures).__name__})"
        self.count: int | None = len(pictures) if isinstance(pictures, Sized) else None
        self._pictures = pictures
        self._order = channel_order
        self.raised: Exception | None = None

    def __iter__(self) -> Generator[Frame, None, None]:
        for picture in self._given():
            clock = time.perf_counter()
            image = load_image(picture, self._order)
            # The next frame may be written into the same memory while this one is still in use.
            if isinstance(picture, np.ndarray) and np.may_share_memory(image, picture):
                image = image.copy()
            yield Frame(image, None, (time.perf_counter() - clock) * 1e3, 0)

    def _given(self) -> Iterator[ImageInput]:
        try:
            # Not `yield from`, which would end a generator that its owner goes on with.
            for picture in self._pictures:  # noqa: UP028
                yield picture
        except Exception as error:
            self.raised = error
            raise

    def close(self) -> None:
        self._pictures = ()  # A generator that nobody else has ends with that: it may hold a camera.
