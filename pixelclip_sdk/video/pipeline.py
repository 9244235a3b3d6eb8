"""Segments the frames of one or several sources in background threads."""

import contextlib
import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal, get_args

from pixelclip_sdk import errors
from pixelclip_sdk.device.pipeline import UNDER_WAY
from pixelclip_sdk.device.pipeline import Pipeline as DevicePipeline
from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import ChannelOrder
from pixelclip_sdk.segmentation import FrameInfo, Segmentation
from pixelclip_sdk.smoothing import Smooth, Smoother, check_smooth
from pixelclip_sdk.video.decoder import VideoSource
from pixelclip_sdk.video.reader import SourceReader
from pixelclip_sdk.video.sources import PictureSource, SourceInput, open_source
from pixelclip_sdk.video.workers import WORKERS, Job, Lane, Pipeline, Predict

__all__ = ["BUFFERS", "WORKERS", "Buffer", "OnError", "segment_frames"]

_log = logging.getLogger(__name__)

Buffer = Literal["auto", "latest", "all"]
"""How a stream handles frames that arrive faster than they are segmented; see `Segmenter.stream`."""

BUFFERS = get_args(Buffer)

OnError = Literal["raise", "skip", "reopen"]
"""How a stream handles a source that fails. ``"raise"``: the stream ends with the error. ``"skip"``: the
other sources continue, and unreadable image files are skipped. ``"reopen"``: a camera or live address
that fails or ends is opened again every second until it is back; other sources raise."""


def segment_frames(
    begin: Callable[[], Predict],
    sources: Sequence[SourceInput],
    *,
    buffer: Buffer = "auto",
    channel_order: ChannelOrder = "rgb",
    on_error: OnError = "raise",
    smooth: Smooth = None,
    gpu: DevicePipeline | None = None,
) -> Generator[Segmentation, None, None]:
    """Segment all frames of all sources; see `Segmenter.stream`.

    `begin` is called once per frame, in frame order, and must not raise. It returns the function that
    segments the frame, `(H, W, 3)` uint8 RGB, with the words of that moment, in a worker thread. That
    function smooths the frame in the turn that it is given (see `Turn`).

    With `gpu`, the GPU of the model decodes video and JPEG files, and frames of several sources, which go
    through the model together, are segmented at the same time.

    The results of each source come in frame order, with `Segmentation.frame` set. Errors name the source and
    the frame, and come after the results of earlier frames. With ``on_error="skip"``, the last source's error
    is raised if all sources fail, and errors of segmenting always. Leaving the loop or calling `close` ends
    the threads and closes the sources.
    """
    for name, value, expected in (("buffer", buffer, BUFFERS), ("on_error", on_error, get_args(OnError))):
        if value not in expected:
            raise ImageError(f"{name} is {value!r}; expected one of {', '.join(expected)}")
    if not sources:
        raise ImageError("no source is given; expected a video file, a folder, a camera or pictures")
    check_smooth(smooth)
    with contextlib.ExitStack() as stack:
        lanes: list[Lane] = []
        for i, given in enumerate(sources):
            source = open_source(given, channel_order)
            stack.callback(source.close)
            if gpu is not None and isinstance(source, VideoSource):
                source.decode_on(gpu.video_frames())
            if isinstance(source, PictureSource):
                source.skip_damaged = on_error == "skip"
                source.jpegs = None if gpu is None else gpu.jpegs
            latest = source.live if buffer == "auto" else buffer == "latest"
            smoother = Smoother(smooth, source.fps) if smooth else None
            lanes.append(Lane(SourceReader(source, reopen=on_error == "reopen"), i, latest, smoother))
        stack.pop_all()  # The pipeline closes them from here on.
    workers = WORKERS if gpu is None else min(max(WORKERS, len(lanes)), UNDER_WAY)
    return _Stream(Pipeline(begin, lanes, workers), max_failures=len(lanes) if on_error == "skip" else 1)


class _Stream(Generator[Segmentation, None, None]):
    """The results of a pipeline. A class, because a generator cannot tell `close` from its finalizer."""

    def __init__(self, pipeline: Pipeline, max_failures: int) -> None:
        self._pipeline = pipeline
        self._failures_left = max_failures

    def send(self, _: None) -> Segmentation:
        """Return the next result."""
        try:
            self._pipeline.start()
            while (job := self._pipeline.next_done()) is not None:
                if isinstance(job.error, Exception) and job.frame is None:
                    self._failures_left -= 1
                    if self._failures_left:
                        _log.warning("%s: %s. The other sources continue.", _name(job), job.error)
                        continue
                return _completed(job)
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def throw(self, error: Any, value: Any = None, _: Any = None) -> Segmentation:
        """Close the stream and raise the error."""
        self.close()
        raise error if value is None else value

    def close(self) -> None:
        """End all threads and close the sources."""
        self._pipeline.stop()

    def __del__(self) -> None:
        self._pipeline.stop(finalizing=True)


def _name(job: Job) -> str:
    return job.lane.reader.source.name


def _completed(job: Job) -> Segmentation:
    """Return the result of a frame with its position and its times; raises the error of the frame instead."""
    place = f"{_name(job)}, frame {job.index}"
    if (error := job.error) is not None:
        from_iterable = error is getattr(job.lane.reader.source, "raised", None)
        if type(error).__module__ == errors.__name__ and not from_iterable:
            raise type(error)(f"{place}: {error}") from error
        error.add_note(f"While reading {place}.")
        raise error
    assert job.frame is not None
    assert job.result is not None
    speed = {name: ms for name, ms in job.result.speed.items() if name != "total"}
    speed["decode"] += job.frame.decode_ms
    if job.lane.smoother is not None:
        speed.setdefault("smooth", 0.0)
    speed["wait"] = job.wait_s * 1e3
    speed["total"] = sum(speed.values())
    info = FrameInfo(
        index=job.index,
        time_s=job.frame.time_s,
        source=job.lane.number,
        id=job.frame.id,
        dropped=job.dropped,
        dropped_total=job.dropped_total,
        damaged=job.frame.damaged,
        seen=job.lane.seen,
    )
    return job.result.replaced(speed=speed, frame=info)
