"""Writing video: H.264 where PyAV has an encoder for it, else MPEG-4. The extra `video`."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import OutputError
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.video.sources import import_av

__all__ = ["VideoWriter", "write_video"]

_SUFFIXES = (".mp4", ".mov", ".mkv")
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
# Sources that state no rate, or an absurd one (some cameras give the ticks of their clock).
_USUAL_FPS = Fraction(25)
_MAX_FPS = 240
# Bits a pixel and frame for encoders that know no constant quality.
_BITS_PER_PIXEL = 0.15


@contextlib.contextmanager
def write_video(path: str | os.PathLike[str], fps: Fraction | None = None) -> Iterator["VideoWriter"]:
    """Yield a writer of frames. The file appears, whole, when the body ends without an exception.

    Args:
        path: A file whose name ends in ``.mp4``, ``.mov`` or ``.mkv``. An existing one is replaced.
        fps: Frames a second; None for 25.

    Raises:
        OutputError: The file cannot be written, its name ends in something else, or there were no frames.
        BackendUnavailableError: PyAV is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise OutputError(
            f"cannot write a video as {target.name!r}; expected a name ending in {', '.join(_SUFFIXES)}"
        )
    av = import_av()
    rate = fps if fps is not None and 1 <= fps <= _MAX_FPS else _USUAL_FPS
    with atomic_write(target) as temporary:
        try:
            with av.open(str(temporary), "w") as container:
                writer = VideoWriter(av, container, rate)
                yield writer
                writer.flush()
        except av.FFmpegError as error:
            raise OutputError(
                f"cannot write {target}: {error.strerror or error}. Is the disk full?"
            ) from error


class VideoWriter:
    """Takes frames of one size. Made by `write_video`.

    Args:
        av: The package.
        container: Opened for writing.
        fps: Frames a second, and the grid that times are rounded to.
    """

    def __init__(self, av: Any, container: Any, fps: Fraction) -> None:
        self._av = av
        self._container = container
        self._fps = fps
        self._stream: Any = None
        self._size = (0, 0)
        self._last = -1

    def write(self, image: npt.NDArray[np.uint8], time_s: float | None = None) -> None:
        """Add a frame.

        Args:
            image: `(H, W, 3)` uint8 RGB. Encoders take even sides only: an odd one is drawn out by one pixel.
            time_s: When it is shown, in seconds from the start; None for one frame's time after the last.

        Raises:
            OutputError: It is not of the first frame's size.
        """
        height, width = image.shape[:2]
        if self._stream is None:
            self._size = (height, width)
            self._stream = self._open_stream(height + height % 2, width + width % 2)
        if (height, width) != self._size:
            raise OutputError(
                f"a frame is {width}×{height}, those before it {self._size[1]}×{self._size[0]}; "
                "a video has one size. Bring the pictures to one size first."
            )
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = self._av.VideoFrame.from_ndarray(image, format="rgb24")
        # Two frames cannot share a place: where a source is faster than it says, they queue up.
        place = self._last + 1 if time_s is None else max(round(time_s * self._fps), self._last + 1)
        self._last = frame.pts = place
        frame.time_base = 1 / self._fps
        self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds.

        Raises:
            OutputError: There were no frames.
        """
        if self._stream is None:
            raise OutputError("there were no frames to write")
        self._container.mux(self._stream.encode())

    def _open_stream(self, height: int, width: int) -> Any:
        name = next(name for name in _ENCODERS if self._has(name))
        stream = self._container.add_stream(name, rate=self._fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if name == "libx264":
            # Half the time of the default for the same quality, in a slightly larger file.
            stream.options = {"preset": "veryfast"}
        else:
            stream.bit_rate = int(width * height * self._fps * _BITS_PER_PIXEL)
        return stream

    def _has(self, encoder: str) -> bool:
        try:
            self._av.codec.Codec(encoder, "w")
        except self._av.codec.codec.UnknownCodecError:
            return False
        return True
