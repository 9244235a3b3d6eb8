"""Opens sources of frames: video files, cameras, network streams, folders, arrays.

Video needs PyAV (the extra `video`). Folders and arrays need only the base install.
"""

import logging
import math
import numbers
import os
import re
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sized
from fractions import Fraction
from pathlib import Path
from typing import Any, Union

import numpy as np
from PIL import Image

from pixelclip_sdk.device.frames import DeviceFrame, is_on_device
from pixelclip_sdk.device.jpeg import JpegDecoder
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import ChannelOrder, ImageInput, load_image
from pixelclip_sdk.support.files import is_file, is_folder
from pixelclip_sdk.support.images import RESULT_SUFFIXES, find_images, image_suffixes
from pixelclip_sdk.video.decoder import VideoSource, import_av
from pixelclip_sdk.video.frames import Frame, FrameSource

__all__ = ["Frame", "FrameInput", "FrameSource", "PictureSource", "SourceInput", "import_av", "open_source"]

FrameInput = ImageInput | tuple[float | None, ImageInput] | tuple[float | None, ImageInput, object]
"""A picture; ``(time_s, picture)`` with its time in seconds; or ``(time_s, picture, id)`` with any object,
which comes back with the result. The time may be None."""

SourceInput = Union[str, os.PathLike[str], int, Iterable[FrameInput], "FrameSource"]
"""A video file, a folder of images, a camera's number or device, an address, an iterable of pictures with or
without times (`FrameInput`), or an open `FrameSource`."""

_log = logging.getLogger(__name__)

_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp")
# Suffixes of pictures that may have several frames.
_ANIMATED = {".apng", ".avif", ".avifs", ".gif", ".webp"}


def open_source(source: SourceInput, channel_order: ChannelOrder = "rgb") -> FrameSource:
    """Open a source of frames. Iterate over the result once, then call its `close`.

    Args:
        source: A video file; a folder of images, read in natural order; a camera's number or its
            ``/dev/videoN``; an address such as ``rtsp://…`` or ``http://…``; or an iterable of pictures, for
            example a generator of uint8 arrays `(H, W, 3)`, each alone or as ``(time_s, picture)`` or
            ``(time_s, picture, id)``. An open `FrameSource` is returned unchanged.
            A local playlist (m3u8, ffconcat) is refused: it could name any other file or address.
        channel_order: Channel order of an iterable's arrays, ``"rgb"`` or ``"bgr"``. Files define their own.

    Returns:
        A source of `Frame` tuples: `(H, W, 3)` uint8 RGB, with the time in seconds.

    Raises:
        ImageError: The file, camera or address does not exist, cannot be decoded, has no video, or its
            frames have more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
        BackendUnavailableError: PyAV is needed but not installed.

    Examples:
        >>> import contextlib
        >>> import numpy as np
        >>> from pixelclip_sdk import open_source
        >>> with contextlib.closing(open_source([np.zeros((48, 64, 3), np.uint8)])) as source:
        ...     [frame.image.shape for frame in source]
        [(48, 64, 3)]
    """
    if channel_order not in ("rgb", "bgr"):
        raise ImageError(f'channel_order is {channel_order!r}; expected "rgb" or "bgr"')
    kind = type(source).__name__
    one_array = isinstance(source, np.ndarray) and source.ndim < 4
    if not one_array and not isinstance(source, bool | bytes | bytearray | Image.Image):
        if isinstance(source, FrameSource):
            return source
        if isinstance(source, int):
            return _open_camera(source)
        if isinstance(source, str | os.PathLike):
            return _open_path(os.path.expanduser(source))  # noqa: PTH111 (it may be an address)
        if isinstance(source, Iterable):
            return PictureSource(source, channel_order, f"iterable ({kind})")
    raise ImageError(
        f"got {kind}; expected a video file, a folder, a camera's number, an address or an iterable of "
        "pictures. For one picture call predict."
    )


def _open_path(text: str) -> FrameSource:
    if re.fullmatch(r"/dev/video\d+", text):
        return VideoSource(text, live=True, format="v4l2")
    if is_folder(text):
        return _open_folder(Path(text))
    if is_file(text):
        if Path(text).suffix.lower() in image_suffixes() - _ANIMATED:
            raise ImageError(f"{text} is a picture, not a video. Use predict, or name a folder of pictures.")
        return VideoSource(text, live=False)
    # `Path("rtsp://host")` becomes "rtsp:/host". A single letter is a drive of Windows.
    text = re.sub(r"^([A-Za-z][\w+.-]+):/(?!/)", r"\1://", text)
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() == "file":
        return _open_path(rest)
    if separator:
        return VideoSource(text, live=scheme.lower() in _LIVE_SCHEMES, network=True)
    raise ImageError(
        f"{text[:300]} does not exist, or cannot be reached; expected a video file, a folder, "
        "a camera or an address"
    )


def _open_folder(folder: Path) -> FrameSource:
    """Open the image files of a folder in natural order, without hidden files and results of `predict`."""
    files = [file for file in find_images(folder) if not file.name.endswith(RESULT_SUFFIXES)]
    if not files:
        raise ImageError(
            f"the folder {folder} has only results ({', '.join(RESULT_SUFFIXES)}); expected pictures"
        )
    return PictureSource(files, "rgb", str(folder))


def _open_camera(number: int) -> FrameSource:
    if number < 0:
        raise ImageError(f"camera {number}; expected a number from 0")
    if sys.platform.startswith("linux"):
        return VideoSource(f"/dev/video{number}", live=True, format="v4l2")
    if sys.platform == "darwin":
        return VideoSource(str(number), live=True, format="avfoundation")
    raise ImageError(
        "cameras go by number on Linux and macOS only. Here pass an iterable of arrays, "
        "e.g. a generator around OpenCV's VideoCapture, with channel_order='bgr'."
    )


class PictureSource:
    """Pictures from an iterable.

    Attributes:
        skip_damaged: Whether unreadable files are logged and counted as damaged instead of raising. Arrays
            that cannot be used always raise, and so does the last file if all are unreadable.
        raised: The exception that the iterable raised, if any. It reaches the caller unchanged.
        jpegs: Decodes JPEG files on a GPU; None for none.
    """

    live: bool = False
    fps: Fraction | None = None

    def __init__(self, pictures: Iterable[FrameInput], channel_order: ChannelOrder, name: str) -> None:
        self.name = name
        self.count: int | None = len(pictures) if isinstance(pictures, Sized) else None
        self.skip_damaged = False
        self.raised: Exception | None = None
        self.jpegs: JpegDecoder | None = None
        self._pictures = pictures
        self._order = channel_order

    def __iter__(self) -> Generator[Frame, None, None]:
        given = damaged = 0
        failure: ImageError | None = None
        for item in self._recorded():
            start = time.perf_counter()
            time_s, picture, mark = _unpacked(item)
            try:
                if is_on_device(picture):
                    image: Any = DeviceFrame(picture, self._order)
                else:
                    image = None if self.jpegs is None else self.jpegs.decode(picture)
                    if image is None:
                        image = load_image(picture, self._order)
            except ImageError as error:
                if not self.skip_damaged or not isinstance(picture, str | os.PathLike | bytes):
                    raise
                _log.warning("%s. Skipped.", error)
                failure = error
                damaged += 1
                continue
            # An iterable may write its next frame into the same memory.
            if isinstance(picture, np.ndarray) and np.may_share_memory(image, picture):
                image = image.copy()
            yield Frame(image, time_s, (time.perf_counter() - start) * 1e3, damaged, mark)
            given += 1
        if failure is not None and not given:
            raise failure

    def _recorded(self) -> Iterator[FrameInput]:
        try:
            # `yield from` would close a generator that its owner continues to use.
            for picture in self._pictures:  # noqa: UP028
                yield picture
        except Exception as error:
            self.raised = error
            raise

    def close(self) -> None:
        """Drop the iterable. A generator that nobody else references ends and releases its camera."""
        self._pictures = ()


def _unpacked(item: FrameInput) -> tuple[float | None, ImageInput, object]:
    """Return the time, the picture and the caller's object of an item of an iterable."""
    if not isinstance(item, tuple):
        return None, item, None
    if len(item) not in (2, 3):
        raise ImageError(f"got a tuple of {len(item)}; expected (time_s, picture) or (time_s, picture, id)")
    time_s, picture = item[0], item[1]
    if time_s is not None:
        is_number = isinstance(time_s, numbers.Real) and not isinstance(time_s, bool)
        if not (is_number and math.isfinite(time_s)):
            raise ImageError(
                f"the time of a frame is {type(time_s).__name__} {str(time_s)[:60]}; expected seconds as a "
                "number, or None. Any other object can be the third item: (None, picture, id)."
            )
        time_s = float(time_s)
    return time_s, picture, item[2] if len(item) == 3 else None
