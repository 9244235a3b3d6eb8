"""Reads one source to its end, and opens a lost live source again."""

import contextlib
import logging
import time
from collections.abc import Callable, Generator

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.video.frames import Frame, FrameSource

__all__ = ["SourceReader"]

_log = logging.getLogger(__name__)

_RETRY_S = 1.0


class SourceReader:
    """Reads the frames of an open source in one thread; with `reopen`, opens a lost live source again.

    Attributes:
        source: The source; another object after it was opened again.
    """

    def __init__(self, source: FrameSource, *, reopen: bool) -> None:
        self.source = source
        self._reopen = reopen

    def frames(self, stopped: Callable[[float], bool]) -> Generator[Frame, None, None]:
        """Yield the frames of the source; raises whatever the source raises.

        With `reopen`, the `Frame.time_s` of a live source never decreases; after the source was opened again,
        it continues at the real time since the first frame, and `Frame.damaged` continues to count.

        Args:
            stopped: Waits for the given seconds; returns True at once if no more frames are wanted.
        """
        start_s: float | None = None  # Monotonic time at which `Frame.time_s` is 0.
        last_s, damaged = 0.0, 0
        while True:
            reopen = getattr(self.source, "reopened", None) if self._reopen and self.source.live else None
            reason, shift_s, damaged_before = "it ended", None, damaged
            frames = None
            try:
                frames = iter(self.source)
                for frame in frames:
                    damaged = damaged_before + frame.damaged
                    if (time_s := frame.time_s) is not None and reopen is not None:
                        now = time.monotonic()
                        if start_s is None:
                            start_s, shift_s = now - time_s, 0.0
                        if shift_s is None:
                            shift_s = now - start_s - time_s
                        last_s = time_s = max(time_s + shift_s, last_s)
                    yield frame._replace(time_s=time_s, damaged=damaged)
            except ImageError as error:
                if reopen is None:
                    raise
                reason = str(error)
            finally:
                if (close := getattr(frames, "close", None)) is not None:
                    close()
            if reopen is None or not self._open_again(reopen, reason, stopped):
                return

    def _open_again(
        self, reopen: Callable[[], FrameSource], reason: str, stopped: Callable[[float], bool]
    ) -> bool:
        """Retry until the source is open; False if `stopped` returned True before."""
        name = self.source.name
        _log.warning("%s: %s. Reconnecting every second.", name, reason)
        with contextlib.suppress(Exception):
            self.source.close()
        attempts = 0
        while not stopped(_RETRY_S):
            attempts += 1
            try:
                self.source = reopen()
            except ImageError as error:
                _log.debug("%s: attempt %d: %s", name, attempts, error)
            else:
                _log.warning("%s: reconnected at attempt %d", name, attempts)
                return True
        return False
