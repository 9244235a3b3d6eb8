"""Cameras, network streams and videos of the server, which live connections watch."""

import asyncio
import atexit
import contextlib
import functools
import io
import logging
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.support.files import is_file, is_folder
from pixelclip_sdk.video.frames import FrameSource
from pixelclip_sdk.video.sources import open_source

__all__ = ["Shot", "Source"]

_log = logging.getLogger(__name__)

_RETRY_S = 1.0
# Longer side of the pictures that are segmented and shown.
_LONGEST_PX = 1280
# Seconds between the pictures of a source without a clock, such as a folder.
_PICTURE_S = 1.0


class Shot:
    """One frame of a source. All viewers share it, and what is made of it is made once.

    Attributes:
        number: Counts the frames of the source, also those that nobody looked at.
        time_s: When it came, in seconds of a monotonic clock.
    """

    def __init__(self, number: int, image: npt.NDArray[np.uint8]) -> None:
        self.number = number
        self.time_s = time.monotonic()
        self._image = image
        self._shrunk = False
        self._jpeg: bytes | None = None
        self._lock = threading.Lock()

    def image(self) -> npt.NDArray[np.uint8]:
        """Return `(H, W, 3)` uint8 RGB, at most 1280 pixels along the longer side. From any thread."""
        with self._lock:
            if not self._shrunk:
                picture = Image.fromarray(self._image)
                picture.thumbnail((_LONGEST_PX, _LONGEST_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
                self._image, self._shrunk = np.asarray(picture), True
            return self._image

    def jpeg(self) -> bytes:
        """Return the image as a JPEG file. From any thread."""
        image = self.image()
        with self._lock:
            if self._jpeg is None:
                file = io.BytesIO()
                Image.fromarray(image).save(file, "JPEG", quality=85)
                self._jpeg = file.getvalue()
            return self._jpeg


class Source:
    """A source that is open only while somebody watches it.

    One thread reads it. Viewers get the newest frame. A source that fails or ends is opened again every
    second; a file starts anew at its end, and plays at its own speed.

    `watch` and the function that it returns are called in the event loop's thread.

    Attributes:
        name: What clients call it.
        newest: The newest frame; None before the first.
        failing: Whether it cannot be read at the moment.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.newest: Shot | None = None
        self.failing = False
        self._address = address
        self._watchers: dict[object, Callable[[], None]] = {}
        self._reader: _Reader | None = None

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call `notify` in the event loop after each frame and each failure; returns what ends that."""
        watcher = object()
        self._watchers[watcher] = notify
        if self._reader is None:
            self._reader = _Reader(self, self._address)
        return functools.partial(self._leave, watcher)

    def _leave(self, watcher: object) -> None:
        self._watchers.pop(watcher, None)
        if not self._watchers and self._reader is not None:
            self._reader.stopped.set()
            self._reader, self.newest, self.failing = None, None, False

    def show(self, reader: "_Reader", shot: Shot | None) -> None:
        """Take the newest frame of the reader, or None for a failure."""
        if reader is not self._reader:
            return
        self.failing = shot is None
        self.newest = shot or self.newest
        for notify in list(self._watchers.values()):
            notify()


class _Reader(threading.Thread):
    """Reads one source until it is stopped. A daemon: a silent camera must not keep the program alive."""

    def __init__(self, source: Source, address: str) -> None:
        super().__init__(name="pixelclip-source", daemon=True)
        self.stopped = threading.Event()
        self._source = source
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._failed = False
        _running.add(self)
        self.start()

    def run(self) -> None:
        number = 0
        while not self.stopped.is_set():
            before, reason, live = number, "it has no frames", True
            try:
                with contextlib.closing(_open(self._address)) as source:
                    live = source.live
                    number = self._read(source, number)
            except Exception as error:  # Whatever a camera's driver or FFmpeg do, the server goes on.
                live, reason = True, str(error)
            if live or number == before:
                self._fail(reason)
                self.stopped.wait(_RETRY_S)

    def _read(self, source: FrameSource, number: int) -> int:
        started = time.monotonic()
        due = step = _PICTURE_S
        with contextlib.closing(iter(source)) as frames:
            for count, frame in enumerate(frames):
                step = _PICTURE_S if frame.time_s is None else float(1 / (source.fps or 25))
                due = count * step if frame.time_s is None else frame.time_s
                if not source.live:
                    self.stopped.wait(max(started + due - time.monotonic(), 0))
                if self.stopped.is_set():
                    return number
                if self._failed:
                    _log.warning("source %s is back", self._source.name)
                self._failed = False
                number += 1
                self._show(Shot(number, frame.image))
        if not source.live:  # The last frame has its time, too.
            self.stopped.wait(max(started + due + step - time.monotonic(), 0))
        return number

    def _fail(self, reason: str) -> None:
        if not self._failed and not self.stopped.is_set():
            _log.warning("source %s: %s. Trying again every second.", self._source.name, reason)
            self._failed = True
            self._show(None)

    def _show(self, shot: Shot | None) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: the server has ended.
            self._loop.call_soon_threadsafe(self._source.show, self, shot)


def _open(address: str) -> FrameSource:
    """``0`` is a camera unless a file has that name, as on the command line."""
    if address.isdecimal() and not (is_file(address) or is_folder(address)):
        return open_source(int(address))
    return open_source(address)


_running: "weakref.WeakSet[_Reader]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop all readers before the interpreter ends their threads inside native code, which aborts."""
    readers = list(_running)
    for reader in readers:
        reader.stopped.set()
    for reader in readers:
        reader.join(1.0)
