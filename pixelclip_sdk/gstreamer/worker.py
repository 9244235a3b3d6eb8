"""Segments the frames that a pipeline pushes, and hands the results on in their order."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.video.pipeline import WORKERS

__all__ = ["MOST_FRAMES", "FrameWorker"]

MOST_FRAMES = WORKERS + 1
"""Frames inside at the same time: those that are segmented, and one that waits so that no thread is idle."""


class FrameWorker:
    """Segments several frames at a time in background threads, like `Segmenter.stream`, but is pushed to.

    `close` ends the threads. All methods may be called from any thread but the one that calls `deliver`.

    Args:
        segmenter: The model with its words, which may change meanwhile.
        smooth: Seconds over which labels of still regions are averaged, 0 to 1; see `Segmenter.stream`.
        deliver: Takes each result and the `tag` of its frame, in the order of the frames.
        failed: Takes the error that ended the work.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import Segmenter
        >>> shapes = []
        >>> with Segmenter.from_pretrained(classes="cat, sofa") as segmenter:
        ...     deliver = lambda result, tag: shapes.append((tag, result.labels.shape))
        ...     worker = FrameWorker(segmenter, 0.3, deliver, print)
        ...     accepted = worker.submit(np.zeros((48, 64, 3), np.uint8), 0.0, "first")
        ...     worker.drain()
        ...     worker.close()
        >>> accepted, shapes
        (True, [('first', (48, 64))])
    """

    def __init__(
        self,
        segmenter: Segmenter,
        smooth: float,
        deliver: Callable[[Segmentation, Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._segmenter = segmenter
        self._smooth = smooth
        self._deliver = deliver
        self._failed = failed
        self._changed = threading.Condition()
        self._waiting: deque[tuple[float | None, npt.NDArray[np.uint8], Any]] = deque()
        self._inside = 0
        self._flushing = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="pixelclip-worker", daemon=True)
        self._thread.start()

    def submit(self, image: npt.NDArray[np.uint8], time_s: float | None, tag: Any) -> bool:
        """Hand over a frame; waits while `MOST_FRAMES` are inside.

        Args:
            image: `(H, W, 3)` uint8 RGB, 0–255. It must not be written to afterwards.
            time_s: Time of the frame in seconds, or None.
            tag: Comes back with the result.

        Returns:
            False if the frame was not taken, because of `flush`, `close` or an earlier error.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._inside < MOST_FRAMES or self._flushing or self._ended)
            if self._flushing or self._ended:
                return False
            self._inside += 1
            self._waiting.append((time_s, image, tag))
            self._changed.notify_all()
            return True

    def drain(self) -> None:
        """Wait until all frames that were submitted are delivered, or dropped."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0 or self._ended)

    def flush(self) -> None:
        """Drop the results of all frames inside, and refuse new ones until `resume`."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()

    def resume(self) -> None:
        """Take frames again after `flush`, once those inside are gone."""
        self.drain()
        with self._changed:
            self._flushing = False

    def close(self) -> None:
        """Drop the frames inside and end the threads. Closing twice is harmless."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            stream = self._segmenter.stream(self._frames(), buffer="all", smooth=self._smooth)
            with contextlib.closing(stream) as results:
                for result in results:
                    assert result.frame is not None  # Results of streams have it.
                    if not (self._flushing or self._ended):
                        self._deliver(result, result.frame.id)
                    with self._changed:
                        self._inside -= 1
                        self._changed.notify_all()
        except Exception as error:
            self._failed(error)
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _frames(self) -> Generator[tuple[float | None, npt.NDArray[np.uint8], Any], None, None]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._ended)
                if self._ended:
                    return
                frame = self._waiting.popleft()
            yield frame
