"""The threads and bounded queues of a stream.

One thread per source reads and decodes. `WORKERS` threads, on a GPU one for each source, each take a decoded
frame through preprocessing, engine and postprocessing, so that one frame is in the engine while another is
prepared or finished. Smoothing takes the frames of a source in order: on the host between engine and
postprocessing, on a GPU where the engine's work is started (docs/adr/0019). The caller's thread takes the
results in order (docs/adr/0008).
"""

import atexit
import contextlib
import dataclasses
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.smoothing import Smoother, Turn
from pixelclip_sdk.video.frames import Frame
from pixelclip_sdk.video.reader import SourceReader

__all__ = ["WORKERS", "Job", "Lane", "Pipeline", "Predict"]

WORKERS = 2
"""Number of frames that are segmented at the same time on a CPU, and of one source."""

# Queue lengths per source: decoded frames, and finished results.
_MAX_WAITING = 2
_MAX_FINISHED = 2
# How long `stop` waits for a source that does not answer.
_PATIENCE_S = 1.0
# Waiting threads look this often whether the stream was stopped without a notification. On Windows, Ctrl-C
# is only noticed between two waits.
_POLL_S = 0.5


Predict = Callable[[npt.NDArray[np.uint8], Turn | None], Segmentation]
"""Segments a frame, and smooths its logits in its turn; None for a frame that is not smoothed."""


@dataclasses.dataclass(eq=False)
class Lane:
    """A source and its queue. Guarded by the pipeline's lock; `reader` and `read` belong to its thread."""

    reader: SourceReader
    number: int
    latest: bool
    smoother: Smoother | None = None
    waiting: "deque[Job]" = dataclasses.field(default_factory=deque)
    ended: bool = False
    delivered: int = 0
    dropped: int = 0  # Before the last result.
    read: int = 0
    taken: int = 0  # Frames that workers have taken.
    smoothed: int = 0  # Frames whose turn to be smoothed is over.
    seen: dict[str, None] = dataclasses.field(default_factory=dict)  # See FrameInfo.


@dataclasses.dataclass(eq=False)
class Job:
    """A frame, or the error that ended its source, on its way through the pipeline."""

    lane: Lane
    index: int
    frame: Frame | None = None
    predict: Predict | None = None
    turn: int = 0  # Place among the frames of its source that workers have taken.
    result: Segmentation | None = None
    error: BaseException | None = None
    done: bool = False
    queued_at: float = dataclasses.field(default_factory=time.perf_counter)
    wait_s: float = 0.0  # Time in queues.
    dropped: int = 0  # Frames since the last result.
    dropped_total: int = 0

    def leave_queue(self) -> None:
        """Add the time since the frame was queued."""
        self.wait_s += time.perf_counter() - self.queued_at


class _StoppedError(Exception):
    """The stream was stopped while a frame waited for its turn."""


class _StreamThread(threading.Thread):
    """A running thread. A daemon: a source that never answers must not keep the program alive."""

    def __init__(self, target: Callable[..., None], *args: Lane) -> None:
        super().__init__(target=target, args=args, name="pixelclip-stream", daemon=True)
        self.start()


class Pipeline:
    """Runs the threads of one stream. `workers` of them segment, a frame each at a time."""

    def __init__(self, begin: Callable[[], Predict], lanes: Sequence[Lane], workers: int = WORKERS) -> None:
        self._begin = begin
        self._lanes = lanes
        self._count = workers
        self._turn = 0
        self._started: deque[Job] = deque()  # Taken by a worker and not yet delivered, in order.
        self._stopped = False
        self._ended = False
        self._changed = threading.Condition()
        self._readers: list[_StreamThread] = []
        self._workers: list[_StreamThread] = []

    def start(self) -> None:
        """Start the threads. Further calls have no effect."""
        if self._readers or self._stopped:
            return
        _running.add(self)
        for lane in self._lanes:
            self._readers.append(_StreamThread(self._read, lane))
        for _ in range(self._count):
            self._workers.append(_StreamThread(self._work))

    def next_done(self) -> Job | None:
        """Return the next finished frame, in order; None at the end or after `stop`."""
        with self._changed:
            self._wait_until(lambda: self._started[0].done if self._started else self._exhausted())
            if self._stopped or not self._started:
                return None
            job = self._started.popleft()
            job.leave_queue()
            total, lane = job.index - job.lane.delivered, job.lane
            job.dropped, job.dropped_total = total - lane.dropped, total
            lane.delivered, lane.dropped = lane.delivered + 1, total
            self._changed.notify_all()
            return job

    def stop(self, *, finalizing: bool = False) -> None:
        """End all threads and close the sources.

        Waits for the frames in work, and for at most a second for sources that do not answer. Never waits for
        the current thread. A finalizer may run in any thread, at any point and with any lock held, so it
        waits for a second at most (`finalizing`), and not at all in a stream's own thread.
        """
        if self._ended:
            return
        self._stopped = True
        # The garbage collector may have interrupted a thread that holds the lock of another pipeline.
        if not self._changed.acquire(timeout=_PATIENCE_S):
            return
        try:
            self._changed.notify_all()
        finally:
            self._changed.release()
        for lane in self._lanes[len(self._readers) :]:  # No thread reads them.
            with contextlib.suppress(Exception):
                lane.reader.source.close()
        current = threading.current_thread()
        if current in (*self._readers, *self._workers) or (finalizing and isinstance(current, _StreamThread)):
            return
        deadline = time.monotonic() + _PATIENCE_S
        for thread in self._workers:
            thread.join(max(deadline - time.monotonic(), 0) if finalizing else None)
        deadline = max(deadline, time.monotonic() + _PATIENCE_S / 10)
        for thread in self._readers:
            thread.join(max(deadline - time.monotonic(), 0.01))
        # Jobs and lanes reference each other; without this, frames stay until a garbage collection.
        with self._changed:
            self._started.clear()
            for lane in self._lanes:
                lane.waiting.clear()
        self._ended = True

    def _read(self, lane: Lane) -> None:
        try:
            with contextlib.closing(lane.reader.frames(self._is_stopped_within)) as frames:
                for frame in frames:
                    if not self._put(Job(lane, lane.read, frame)):
                        return
                    lane.read += 1
        except BaseException as error:  # sys.exit() as well: it belongs to the caller.
            self._put(Job(lane, lane.read, error=error))
        finally:
            # Not in `stop`: only here is it certain that no thread reads the source.
            with contextlib.suppress(Exception):
                lane.reader.source.close()
            with self._changed:
                lane.ended = True
                self._changed.notify_all()

    def _is_stopped_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._stopped, timeout=seconds)

    def _put(self, job: Job) -> bool:
        """Queue a frame for the workers; False if the stream was stopped."""
        lane = job.lane
        with self._changed:
            if lane.latest and job.error is None:
                lane.waiting.clear()
            self._wait_until(lambda: len(lane.waiting) < _MAX_WAITING)
            if self._stopped:
                return False
            lane.waiting.append(job)
            self._changed.notify_all()
            return True

    def _work(self) -> None:
        while (job := self._take()) is not None:
            if job.frame is not None and job.predict is not None:
                turn, smoother, time_s = None, job.lane.smoother, job.frame.time_s
                if smoother is not None and smoother.applies(time_s):
                    turn = Turn(smoother, job.index, time_s, self._in_order(job))
                try:
                    job.result = job.predict(job.frame.image, turn)
                except Exception as error:  # Raised in the caller's thread.
                    job.error = error
                job.wait_s += turn.wait_s if turn else 0.0
            with self._changed:
                self._end_turn(job)
                job.done = True
                job.queued_at = time.perf_counter()
                if job.lane.latest:
                    self._keep_newest(job.lane)
                self._changed.notify_all()
            del job

    @contextlib.contextmanager
    def _in_order(self, job: Job) -> Iterator[None]:
        """Wait until the frames of the source before this one were smoothed; see `Turn`."""
        lane, turn = job.lane, job.turn
        with self._changed:
            # Another worker has the frames before this one and never waits for this one.
            self._wait_until(lambda: lane.smoothed == turn)
            if self._stopped:
                del job  # The error becomes the job's, and would refer to it.
                raise _StoppedError  # Nobody wants the frame.
        try:
            yield
        finally:
            with self._changed:
                self._end_turn(job)
            del job  # Also of errors that pass here.

    def _end_turn(self, job: Job) -> None:
        """Let the next frame of the source be smoothed, after the frames before this one. Under the lock."""
        lane = job.lane
        self._wait_until(lambda: lane.smoothed >= job.turn)
        lane.smoothed = max(lane.smoothed, job.turn + 1)
        self._changed.notify_all()

    def _take(self) -> Job | None:
        """Return the next frame to segment, from each source in turn; None when there will be none."""
        with self._changed:
            self._wait_until(lambda: self._next_lane() is not None or self._exhausted())
            lane = self._next_lane()
            if self._stopped or lane is None:
                return None
            self._turn = lane.number + 1
            job = lane.waiting.popleft()
            job.leave_queue()
            job.turn, lane.taken = lane.taken, lane.taken + 1
            # Under the lock, in order: new words never reach an earlier frame than old ones.
            if job.error is None:
                job.predict = self._begin()
            self._started.append(job)
            self._changed.notify_all()
            return job

    def _wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait under the lock until a condition is met or the stream is stopped."""
        while not self._stopped and not is_ready():
            self._changed.wait(_POLL_S)

    def _next_lane(self) -> Lane | None:
        lanes = (*self._lanes[self._turn :], *self._lanes[: self._turn])
        return next((lane for lane in lanes if lane.waiting and self._has_room(lane)), None)

    def _has_room(self, lane: Lane) -> bool:
        started = [job for job in self._started if job.lane is lane]
        if lane.latest:  # No frame may overtake an error, which ends the stream.
            return not any(job.error for job in started)
        return len(started) < WORKERS + _MAX_FINISHED

    def _keep_newest(self, lane: Lane) -> None:
        """Drop the finished results of a live source that newer ones replace."""
        finished = [job for job in self._started if job.lane is lane and job.done and job.error is None]
        for job in finished[:-1]:
            self._started.remove(job)

    def _exhausted(self) -> bool:
        return all(lane.ended and not lane.waiting for lane in self._lanes)


_running: "weakref.WeakSet[Pipeline]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """Stop all streams before the interpreter ends their threads inside native code, which aborts."""
    for pipeline in list(_running):
        pipeline.stop()
