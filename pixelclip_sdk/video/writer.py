"""Writes video files: H.264 where PyAV has an encoder for it, else MPEG-4. Needs the extra `video`."""

import contextlib
import itertools
import logging
import math
import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError, OutputError
from pixelclip_sdk.support.files import fsync_file, fsync_folder, user_path
from pixelclip_sdk.video.decoder import explain, file_url, import_av, is_hd

__all__ = ["VideoWriter", "write_video"]

_log = logging.getLogger(__name__)

_SUFFIXES = (".mp4", ".mov", ".mkv")
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
# For sources that state no rate or an absurd one. Some cameras state the ticks of their clock.
_DEFAULT_FPS = Fraction(25)
_MAX_FPS = 240
# MPEG-4 stores the ticks per second in 16 bits.
_MAX_TICKS = 65535
# Matroska and others round times to milliseconds. A time this near a multiple of 1 / fps counts as one.
_ROUNDED_S = 0.00051
_BITS_PER_PIXEL = 0.15  # For OpenH264, which has no constant quality.
_MPEG4_QUALITY = 4  # The quantiser, 1 (best) to 31.
# An MP4 file is a series of one-second fragments until it is closed, and then an ordinary MP4 file.
_FRAGMENTS = {"movflags": "+hybrid_fragmented", "frag_duration": "1000000"}
# Colour values of H.273: BT.709, and the matrix of BT.601. RGB pictures have the primaries of BT.709.
_BT709, _BT601 = 1, 6
_LIMITED_RANGE = 1


@contextlib.contextmanager
def write_video(path: str | os.PathLike[str], fps: Fraction | float | None = None) -> Iterator["VideoWriter"]:
    """Yield a `VideoWriter` for a new video file.

    Frames are written to ``NAME.partial.mp4`` beside the target, which gets its name when the body ends. If
    the body raises, or the process dies, the partial file stays and plays, and an existing file at `path` is
    not touched. Partial files are never overwritten: the next one is called ``NAME.partial-2.mp4``. A link at
    `path` stays, and the permissions of an existing file are kept.

    Args:
        path: The file to write. Its name ends in ``.mp4``, ``.mov`` or ``.mkv``.
        fps: Nominal frames per second; None, or a value outside 1 to 240, means 25. It spaces frames that
            are written without a time.

    Raises:
        OutputError: The file cannot be written, the suffix is unknown, or no frame was written.
        BackendUnavailableError: PyAV is not installed.

    Examples:
        >>> from fractions import Fraction
        >>> import numpy as np
        >>> from pixelclip_sdk import Segmenter, write_video
        >>> frames = [np.zeros((48, 64, 3), np.uint8)] * 3
        >>> with Segmenter.from_pretrained("pixelclip-lite", classes="cat, sofa") as segmenter:
        ...     with write_video("out.mp4", Fraction(30)) as writer:
        ...         for result in segmenter.stream(frames):
        ...             writer.write(np.asarray(result.plot()), result.frame.time_s)
    """
    target = Path(
        os.path.realpath(user_path(path))
    )  # A link stays, and the file that it leads to is replaced.
    if target.suffix.lower() not in _SUFFIXES:
        raise OutputError(
            f"cannot write a video as {target.name!r}; expected a name ending in {', '.join(_SUFFIXES)}"
        )
    av = import_av()
    partial = _create_partial(av, target)
    writer = None
    try:
        writer = VideoWriter(av, partial, target, fps)
        yield writer
        writer.close()
        with _output_errors(av, target):
            partial.replace(target)
            fsync_folder(target.parent)
    except BaseException:
        if writer is not None:
            with contextlib.suppress(OutputError):
                writer.close()
        if writer is None or writer.frames == 0:
            partial.unlink(missing_ok=True)
        else:
            _log.warning("%s was not finished. The recording until then is in %s", target, partial)
        raise


class VideoWriter:
    """Encodes frames of one size into a file. Created by `write_video`.

    Attributes:
        frames: Number of frames written so far.
    """

    def __init__(self, av: Any, file: Path, target: Path, fps: Fraction | float | None) -> None:
        self.frames = 0
        self._av, self._file, self._target = av, file, target
        known = fps if fps is not None and 1 <= fps <= _MAX_FPS else _DEFAULT_FPS
        self._fps = Fraction(known).limit_denominator(1001)
        # Ticks per second: a multiple of the rate's numerator, so that a constant rate is exact.
        self._ticks = _MAX_TICKS // self._fps.numerator * self._fps.numerator or _MAX_TICKS
        self._stream: Any = None
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._size = (0, 0)
        self._last = -_MAX_TICKS  # Display time of the previous frame, in ticks.
        options = {"flush_packets": "1"} | (_FRAGMENTS if file.suffix.lower() != ".mkv" else {})
        with _output_errors(self._av, self._target):
            self._container = av.open(file_url(file), "w", options=options)

    def write(self, image: npt.NDArray[np.uint8], time_s: float | None = None) -> None:
        """Add a frame.

        Args:
            image: `(H, W, 3)` uint8 RGB. Encoders need even sides; an odd side is extended by one pixel.
            time_s: Display time in seconds from the start. A time that is not after the previous frame's
                becomes 1 ms after it. None means one frame interval after the previous frame.

        Raises:
            ImageError: `image` has another shape or dtype, or `time_s` is not finite.
            OutputError: The image is not of the first frame's size, or the file cannot be written.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ImageError(f"got {image.dtype} {image.shape}; expected uint8 (H, W, 3), 0–255 RGB")
        if time_s is not None and not math.isfinite(time_s):
            raise ImageError(f"time_s is {time_s}; expected seconds from the start")
        height, width = image.shape[:2]
        if self._stream is not None and (height, width) != self._size:
            raise OutputError(
                f"a frame is {width}×{height}, those before it {self._size[1]}×{self._size[0]}; "
                "a video has one size. Bring the pictures to one size first."
            )
        even = height + height % 2, width + width % 2
        if even != (height, width):
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        interval = round(self._ticks / self._fps)
        if time_s is not None:
            regular = round(time_s * self._fps) / self._fps
            if abs(regular - time_s) < _ROUNDED_S:
                time_s = float(regular)
            place = max(round(time_s * self._ticks), self._last + self._ticks // 1000, 0)
        else:
            place = self._last + interval if self.frames else 0
        with _output_errors(self._av, self._target):
            if self._stream is None:
                self._stream = self._add_stream(*even)
                self._size = (height, width)
            frame = self._reformatter.reformat(
                self._av.VideoFrame.from_ndarray(image, format="rgb24"),
                format="yuv420p",
                dst_colorspace=self._stream.codec_context.colorspace,
                dst_color_range=_LIMITED_RANGE,
            )
            frame.pts, frame.duration = place, interval
            frame.time_base = Fraction(1, self._ticks)
            packets = self._stream.encode(frame)
            self._last = place
            self.frames += 1
            self._container.mux(packets)

    def close(self) -> None:
        """Write the frames that the encoder holds, and close the file. `write_video` calls this.

        Raises:
            OutputError: No frame was written, or the file cannot be written.
        """
        container, stream = self._container, self._stream
        self._container = self._stream = None
        if container is None:
            return
        with _output_errors(self._av, self._target):
            with container:
                if stream is not None:
                    container.mux(stream.encode())
            fsync_file(self._file)
        if self.frames == 0:
            raise OutputError(f"cannot write {self._target}: there were no frames to write")

    def _add_stream(self, height: int, width: int) -> Any:
        for name in _ENCODERS:
            with contextlib.suppress(self._av.codec.codec.UnknownCodecError):
                stream = self._container.add_stream(name, rate=self._fps)
                break
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, self._ticks)
        context.colorspace = _BT709 if is_hd(height, width) else _BT601
        context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        if name == "libx264":
            # Half the time of the default preset at the same quality, for a slightly larger file. B-frames
            # would delay the first display time of a fragmented file.
            stream.options = {"preset": "veryfast", "bf": "0"}
        elif name == "mpeg4":
            context.qscale = True
            context.global_quality = _MPEG4_QUALITY * 118  # FF_QP2LAMBDA
        else:
            stream.bit_rate = int(width * height * self._fps * _BITS_PER_PIXEL)
        return stream


@contextlib.contextmanager
def _output_errors(av: Any, target: Path, hint: str = "") -> Iterator[None]:
    """Raise errors of FFmpeg and of the operating system as `OutputError`."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise OutputError(f"cannot write {target}: {explain(error)}{hint}") from error


def _create_partial(av: Any, target: Path) -> Path:
    """Create an empty file beside `target` with a name that no other file has."""
    with _output_errors(av, target, ". Choose a folder that can be written."):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise OutputError(f"cannot write {target}: it is a folder. Name a file in it.")
        for i in itertools.count(1):
            number = f"-{i}" if i > 1 else ""
            partial = target.with_name(f"{target.stem[:60]}.partial{number}{target.suffix}")
            with contextlib.suppress(FileExistsError):
                partial.touch(exist_ok=False)
                if target.exists():  # Before the content is there: it may be private.
                    partial.chmod(stat.S_IMODE(target.stat().st_mode) | stat.S_IWUSR)
                return partial
    raise AssertionError("unreachable")
