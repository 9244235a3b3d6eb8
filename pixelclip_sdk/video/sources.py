"""Opens sources of frames: video files, cameras, network streams, folders, arrays.

Video needs PyAV (the extra `video`). Folders and arrays need only the base install.
"""

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import ChannelOrder, ImageInput
from pixelclip_sdk.support.files import is_file, is_folder
from pixelclip_sdk.video.decoder import VideoSource
from pixelclip_sdk.video.frames import Frame, FrameSource
from pixelclip_sdk.video.pictures import PictureSource, open_folder
from pixelclip_sdk.video.pyav import import_av

__all__ = ["Frame", "FrameSource", "SourceInput", "import_av", "open_source"]

SourceInput = Union[str, os.PathLike[str], int, Iterable[ImageInput], "FrameSource"]
"""A video file, a folder of images, a camera's number or device, an address, an iterable of pictures, or an
open `FrameSource`."""

_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "udp", "srt", "tcp")


def open_source(source: SourceInput, channel_order: ChannelOrder = "rgb") -> FrameSource:
    """Open a source of frames. Iterate over the result once, then call its `close`.

    Args:
        source: A video file; a folder of images, read in natural order; a camera's number or its
            ``/dev/videoN``; an address such as ``rtsp://…`` or ``http://…``; or an iterable of pictures, for
            example a generator of uint8 arrays `(H, W, 3)`. An open `FrameSource` is returned unchanged.
            A local playlist (m3u8, ffconcat) is refused: it could name any other file or address.
        channel_order: Channel order of an iterable's arrays, ``"rgb"`` or ``"bgr"``. Files define their own.

    Returns:
        A source of `Frame` tuples: `(H, W, 3)` uint8 RGB, with the time in seconds.

    Raises:
        ImageError: The file, camera or address does not exist, cannot be decoded, has no video, or its
            frames have more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
        BackendUnavailableError: PyAV is needed but not installed.

    Example:
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
            return _open_path(os.fspath(source))
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
        return open_folder(Path(text))
    if is_file(text):
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
