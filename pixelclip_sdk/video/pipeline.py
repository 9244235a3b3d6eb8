"""Frames in, results out: the stages of many frames at once.

A thread a source reads and decodes; two threads take decoded frames through preprocessing, the engine and
postprocessing, each with a frame of its own, so that one frame is in the engine while another is prepared
or finished; the caller's thread gets the results in order. Nothing grows: every queue has an end.

Threads go by frames, not by stages: a frame changes hands twice instead of four times, and both cores are
busy whatever stage is the slowest (docs/adr/0008).
"""

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError, PixelClipError
from pixelclip_sdk.image import ChannelOrder
from pixelclip_sdk.segmentation import FrameInfo, Segmentation
from pixelclip_sdk.video.sources import Frame, FrameSource, Reopenable, SourceInput, open_source

__all__ = ["BUFFERS", "WORKERS", "Buffer", "OnError", "segment_frames"]

_log = logging.getLogger(__name__)

Buffer = Literal["auto", "latest", "all"]
"""What happens to frames that come faster than results: ``"latest"``: a newer one takes their place;
``"all"``: the source waits; ``"auto"``: the former for live sources, the latter for others."""

BUFFERS = get_args(Buffer)

OnError = Literal["raise", "skip", "reopen"]
"""What a source that breaks off does to a stream: ``"raise"``: it ends all; ``"skip"``: the others go on;
``"reopen"``: if it is a camera or a live address it is opened again until it is back, also when it only
ended; else as ``"raise"``."""

WORKERS = 2
"""Frames that are segmented at the same time."""

# Decoded frames that wait for a worker, and finished results that wait for the caller, a source.
_WAITING = 2
_FINISHED = 2
# Between attempts to open a live source again.
_RETRY_S = 1.0
# How long the end of a stream waits for a source that does not answer, before its thread is left behind.
_PATIENCE_S = 1.0


Predict = Callable[[npt.NDArray[np.uint8]], Segmentation]


def segment_frames(
    begin: Callable[[], Predict],
    sources: Sequence[SourceInput],
    *,
    buffer: Buffer = "auto",
    channel_order: ChannelOrder = "rgb",
    on_error: OnError = "raise",
) -> Generator[Segmentation, None, None]:
    """Results of all frames of all sources.

    Args:
        begin: Called for every frame, in their order; returns what segments it, `(H, W, 3)` uint8 RGB, with
            the words of that moment. Must not raise. What it returns is called in one of two threads.
        sources: See `pixelclip_sdk.video.sources.open_source`; served in turns. They are opened at once, and
            closed when the iterator ends or is closed.
        buffer: See `Buffer`.
        channel_order: Order of the channels of arrays.
        on_error: See `OnError`. With ``"skip"`` the log names a source that breaks off; if all do, the last
            one's error is raised. Errors of segmenting always are.

    Returns:
        Results, each source's in the order of its frames, with `Segmentation.frame` filled in. A new
        object with arrays of its own every time.

    Raises:
        ImageError: A source cannot be opened, breaks off or gives something that is no picture; the message
            names source and frame. Frames before it are handed out first.
        BackendUnavailableError: A source takes PyAV, which is not installed.
        PixelClipError: What segmenting raises, with the frame in its message.
    """
    if buffer not in BUFFERS:
        raise ImageError(f"buffer is {buffer!r}; expected one of {', '.join(BUFFERS)}")
    if on_error not in get_args(OnError):
        raise ImageError(f"on_error is {on_error!r}; expected one of {', '.join(get_args(OnError))}")
    if not sources:
        raise ImageError("no source is given; expected a video file, a folder, a camera or pictures")
    with contextlib.ExitStack() as stack:
        opened = []
        for source in sources:
            opened.append(open_source(source, channel_order))
            stack.callback(opened[-1].close)
        stack.pop_all()  # All are open: from here on they are the pipeline's.
    pipeline = _Pipeline(begin, opened, buffer, reopen=on_error == "reopen")
    results = _results(pipeline, len(opened) if on_error == "skip" else 1)
    next(results)  # Into its `try`: from here on, dropping it closes the sources, even if nobody reads it.
    return results


def _results(pipeline: "_Pipeline", most_broken: int) -> Generator[Any, None, None]:
    """None, then the results, until so many sources have broken off."""
    broken = 0
    try:
        yield None
        pipeline.start()
        while (job := pipeline.next_done()) is not None:
            if (
                isinstance(job.error, Exception)
                and job.frame is None
                and (broken := broken + 1) < most_broken
            ):
                _log.warning("%s: %s. The other sources go on.", job.lane.source.name, job.error)
                continue
            yield _finish(job)
            del job  # Not kept while the next one is waited for.
    finally:
        pipeline.stop()


@dataclasses.dataclass(eq=False)
class _Lane:
    """A source and what is known of it. Guarded by the pipeline's lock, but for what only its reader uses."""

    source: FrameSource
    number: int
    latest: bool
    waiting: "deque[_Job]" = dataclasses.field(default_factory=deque)
    ended: bool = False
    delivered: int = 0
    # The reader's: frames so far, the last one's time, damaged pieces. They go on when it is opened again.
    read: int = 0
    time_s: float = 0.0
    damaged: int = 0


@dataclasses.dataclass(eq=False)
class _Job:
    """A frame on its way."""

    lane: _Lane
    index: int
    frame: Frame | None = None
    predict: Predict | None = None
    result: Segmentation | None = None
    error: BaseException | None = None
    done: bool = False
    # Time in queues: from each point at which it was put into one.
    since: float = dataclasses.field(default_factory=time.perf_counter)
    wait_s: float = 0.0
    dropped: int = 0

    def leave_queue(self) -> None:
        self.wait_s += time.perf_counter() - self.since


class _Pipeline:
    def __init__(
        self, begin: Callable[[], Predict], sources: Sequence[FrameSource], buffer: Buffer, *, reopen: bool
    ) -> None:
        self._begin = begin
        self._reopen = reopen
        self._lanes = [
            _Lane(source, i, latest=source.live if buffer == "auto" else buffer == "latest")
            for i, source in enumerate(sources)
        ]
        self._turn = 0
        self._started: deque[_Job] = deque()  # Taken by a worker, not yet handed out; in their order.
        self._stopped = False
        self._changed = threading.Condition()
        self._readers: list[threading.Thread] = []
        self._workers: list[threading.Thread] = []

    def start(self) -> None:
        for lane in self._lanes:
            self._start(self._readers, self._read, lane)
        for _ in range(WORKERS):
            self._start(self._workers, self._work)

    def _start(self, threads: list[threading.Thread], target: Callable[..., None], *args: _Lane) -> None:
        # Daemons: a source that never answers must not keep the program alive.
        thread = threading.Thread(target=target, args=args, name="pixelclip-stream", daemon=True)
        thread.start()
        threads.append(thread)

    def next_done(self) -> _Job | None:
        """The next frame that is through, in order; None at the end."""
        with self._changed:
            while True:
                if self._started and self._started[0].done:
                    job = self._started.popleft()
                    job.leave_queue()
                    job.dropped = job.index - job.lane.delivered
                    job.lane.delivered += 1
                    self._changed.notify_all()
                    return job
                if not self._started and self._exhausted():
                    return None
                self._changed.wait(0.5)  # With a limit: on Windows only then can Ctrl-C get through.

    def stop(self) -> None:
        """End all threads. Returns within a frame's time, or a second if a source does not answer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._workers:
            thread.join()
        deadline = time.monotonic() + _PATIENCE_S
        for thread in self._readers:
            thread.join(max(deadline - time.monotonic(), 0.01))
        for lane in self._lanes[len(self._readers) :]:  # If not every thread could be started.
            lane.source.close()
        with (
            self._changed
        ):  # Jobs and lanes hold each other: frames and sources would stay until a collection.
            self._started.clear()
            for lane in self._lanes:
                lane.waiting.clear()

    def _read(self, lane: _Lane) -> None:
        try:
            while True:
                broken: BaseException | None = None
                try:
                    if not self._read_once(lane):
                        return
                # Whatever it is, sys.exit() as well, it belongs to the caller.
                except BaseException as error:
                    broken = error
                if not self._is_to_return(lane, broken):
                    if broken is not None:
                        self._put(_Job(lane, lane.read, error=broken))
                    return
                if not self._bring_back(lane, broken):
                    return
        finally:
            # Here and not in `stop`: only the thread that reads knows that nobody is reading.
            with contextlib.suppress(Exception):
                lane.source.close()
            with self._changed:
                lane.ended = True
                self._changed.notify_all()

    def _read_once(self, lane: _Lane) -> bool:
        """Read a source to its end, counting on where it was opened again; False if nobody wants more."""
        passed, damaged = lane.time_s, lane.damaged
        with contextlib.closing(iter(lane.source)) as frames:
            for frame in frames:
                time_s = frame.time_s
                if time_s is not None:
                    lane.time_s = time_s = passed + time_s
                lane.damaged = damaged + frame.damaged
                frame = frame._replace(time_s=time_s, damaged=lane.damaged)
                if not self._put(_Job(lane, lane.read, frame)):
                    return False
                lane.read += 1
        return True

    def _is_to_return(self, lane: _Lane, broken: BaseException | None) -> bool:
        """Whether a source that ended, or broke off, is to be opened again."""
        return (
            self._reopen
            and lane.source.live
            and isinstance(lane.source, Reopenable)
            and (broken is None or isinstance(broken, ImageError))
        )

    def _bring_back(self, lane: _Lane, broken: BaseException | None) -> bool:
        """Open a source again, as often as it takes; False if nobody wants it any more."""
        assert isinstance(lane.source, Reopenable)
        _log.warning("%s: %s. It is opened again until it is back.", lane.source.name, broken or "it ended")
        gone, attempts, since = lane.source, 0, time.monotonic()
        with contextlib.suppress(Exception):
            gone.close()
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._stopped, timeout=_RETRY_S):
                    return False
            attempts += 1
            try:
                lane.source = gone.reopened()
            except ImageError as error:
                _log.debug("attempt %d: %s", attempts, error)
            else:
                lane.time_s += time.monotonic() - since
                _log.warning("%s: it is back, at attempt %d", lane.source.name, attempts)
                return True

    def _put(self, job: _Job) -> bool:
        """Hand a frame to the workers; False if nobody wants more."""
        lane = job.lane
        with self._changed:
            if lane.latest and job.error is None:
                lane.waiting.clear()
            while len(lane.waiting) >= _WAITING and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return False
            lane.waiting.append(job)
            self._changed.notify_all()
            return True

    def _work(self) -> None:
        while (job := self._take()) is not None:
            if job.frame is not None and job.predict is not None:
                try:
                    job.result = job.predict(job.frame.image)
                except Exception as error:  # Whatever it is, it belongs to the caller.
                    job.error = error
            with self._changed:
                job.done = True
                job.since = time.perf_counter()
                if job.lane.latest:
                    self._keep_newest(job.lane)
                self._changed.notify_all()
            del job

    def _take(self) -> _Job | None:
        """The next frame to work on, from each source in turn; None when there will be none."""
        with self._changed:
            while not self._stopped:
                for i in range(len(self._lanes)):
                    lane = self._lanes[(self._turn + i) % len(self._lanes)]
                    if lane.waiting and self._has_room(lane):
                        self._turn = lane.number + 1
                        job = lane.waiting.popleft()
                        job.leave_queue()
                        # Here, in order: a change of words never reaches a later frame before an earlier one.
                        if job.error is None:
                            job.predict = self._begin()
                        self._started.append(job)
                        self._changed.notify_all()
                        return job
                if self._exhausted():
                    return None
                self._changed.wait()
            return None

    def _has_room(self, lane: _Lane) -> bool:
        started = [job for job in self._started if job.lane is lane]
        if lane.latest:  # Errors are not overtaken, and with one of them all ends.
            return not any(job.error for job in started)
        return len(started) < WORKERS + _FINISHED

    def _keep_newest(self, lane: _Lane) -> None:
        """Forget finished results of a live source that a newer one has overtaken."""
        finished = [job for job in self._started if job.lane is lane and job.done and job.error is None]
        for job in finished[:-1]:
            self._started.remove(job)

    def _exhausted(self) -> bool:
        return all(lane.ended and not lane.waiting for lane in self._lanes)


def _finish(job: _Job) -> Segmentation:
    """The result of a frame, with what its way through the pipeline took.

    Raises:
        PixelClipError: The frame's error.
    """
    place = f"{job.lane.source.name}, frame {job.index}"
    if (error := job.error) is not None:
        theirs = error is getattr(job.lane.source, "raised", None)  # Their iterator's, whatever its kind.
        if isinstance(error, PixelClipError) and not theirs:
            raise type(error)(f"{place}: {error}") from error
        error.add_note(f"While reading {place}.")
        raise error
    if job.frame is None or job.result is None:
        raise ImageError(f"{place}: lost")
    speed = {name: ms for name, ms in job.result.speed.items() if name != "total"}
    speed["decode"] += job.frame.decode_ms
    speed["wait"] = job.wait_s * 1e3
    speed["total"] = sum(speed.values())
    info = FrameInfo(
        index=job.index,
        time_s=job.frame.time_s,
        source=job.lane.number,
        dropped=job.dropped,
        damaged=job.frame.damaged,
    )
    return dataclasses.replace(job.result, speed=speed, frame=info)
