"""The interface of a source of frames."""

from collections.abc import Generator
from fractions import Fraction
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

__all__ = ["Frame", "FrameSource"]


class Frame(NamedTuple):
    """One decoded frame.

    Attributes:
        image: `(H, W, 3)` uint8 RGB, upright. No other code writes to this memory. In a stream of a model on
            a GPU it may be a `DeviceFrame`.
        time_s: Seconds since the source's first frame, or the caller's own time stamp in seconds; None if the
            source has no clock.
        decode_ms: Decoding time in milliseconds, without waiting for the source.
        damaged: Number of packets or files so far that could not be decoded.
        id: The caller's own mark of the frame, of any type; `FrameInfo.id` returns it.
    """

    image: npt.NDArray[np.uint8]
    time_s: float | None
    decode_ms: float
    damaged: int
    id: object = None


@runtime_checkable
class FrameSource(Protocol):
    """An open source of frames. Iterate over it once, then close it.

    A live source may have a method `reopened`, which opens the same source again or raises ImageError.

    Attributes:
        name: Name for messages, without credentials.
        live: Whether unread frames are lost, as with a camera.
        fps: Frames per second; None if unknown.
        count: Approximate number of frames; None if unknown.
    """

    name: str
    live: bool
    fps: Fraction | None
    count: int | None

    def __iter__(self) -> Generator[Frame, None, None]: ...

    def close(self) -> None:
        """Release the file or the camera. May be called more than once."""
