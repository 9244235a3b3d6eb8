"""Segments images on a GPU: the pipeline's arrays as results, which leave the GPU when they are read."""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.confidence import Rivals
from pixelclip_sdk.device.asks import Frame, Words
from pixelclip_sdk.device.frames import DeviceFrame
from pixelclip_sdk.device.pipeline import UNDER_WAY, Pipeline
from pixelclip_sdk.device.started import Started
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.smoothing import Turn
from pixelclip_sdk.support.clock import Clock
from pixelclip_sdk.words.background import Competition

__all__ = ["segment_on_device"]


def segment_on_device(
    pipeline: Pipeline,
    frames: Sequence[Frame],
    spec: InputSpec,
    words: Competition,
    threshold: float | None,
    refine: Literal["edges", "off"],
    speeds: Sequence[dict[str, float]],
    turn: Turn | None = None,
) -> list[Segmentation]:
    """Segment frames without a way over the CPU, or a frame that is smoothed in its turn.

    Results of frames on the host and of files are there, those of frames that the caller has on the GPU may
    be under way. ``inference`` of `speeds` is the time of this thread for everything but decoding, and but
    waiting for a turn.
    """
    unused = set(words.vocabulary.unused)
    asked = Words(
        words.embeddings,
        len(words.vocabulary),
        tuple(row for row in range(words.competing) if row not in unused),
        words.competing,
        words,
    )
    results: list[Segmentation] = []
    waiting: deque[tuple[Frame, Started, dict[str, float]]] = deque()
    try:
        for i in range(len(frames) + UNDER_WAY):
            if i < len(frames):
                clock = Clock(speeds[i])
                down = () if _stays(frames[i]) else ("labels", "logits")
                started = pipeline.start(
                    frames[i], spec, asked, threshold, edges=refine == "edges", download=down, turn=turn
                )
                clock.lap("inference")
                clock.laps["inference"] -= turn.wait_s * 1e3 if turn else 0.0
                waiting.append((frames[i], started, clock.laps))
            if waiting and i >= UNDER_WAY - 1:
                results.append(_result(pipeline, *waiting[0], words, refine))
                waiting.popleft()
    except BaseException:
        # From now on, the caller may overwrite all frames; and a failed frame's error refers to its slot.
        for _, started, _ in waiting:
            with contextlib.suppress(Exception):
                started.read()
        if turn:
            turn.smoother.forget()  # The average may be that of a frame that failed, or half of it.
        raise
    return results


def _result(
    pipeline: Pipeline,
    frame: Frame,
    started: Started,
    speed: dict[str, float],
    words: Competition,
    refine: Literal["edges", "off"],
) -> Segmentation:
    before, clock = speed.pop("inference"), Clock(speed)
    on_gpu: dict[str, Any] = {}
    arrays: dict[str, Any]
    if _stays(frame):
        started.read()  # From now on, the caller may overwrite it.
        labels, scores, logits = map(started.array, ("labels", "scores", "logits"))
        on_gpu["labels_on_device"] = labels
        if words.competing == len(words.vocabulary):  # Else the best may be a background word.
            on_gpu["scores_on_device"] = scores
        shape = (len(words.vocabulary), *logits.shape[1:])
        arrays = {
            "labels": _Later(labels.numpy, labels.shape, labels.dtype),
            "logits": _Later(lambda: _classes(logits.numpy(), words), shape),
            "rivals": _Later(lambda: _rivals(logits.numpy(), words)),
        }
    else:
        labels_read, grid = started.end(("labels", "logits"))
        arrays = {
            "labels": labels_read,
            "logits": _classes(grid, words),
            "rivals": _rivals(grid, words),
        }
    arrays["image"] = (
        _Later(lambda: pipeline.fetch(frame), frame.shape) if isinstance(frame, DeviceFrame) else frame
    )
    clock.lap("inference")
    speed["inference"] += before
    for stage in ("preprocess", "refine", "postprocess"):
        speed.setdefault(stage, 0.0)
    speed["total"] = sum(speed.values())
    return Segmentation(
        **arrays,
        **on_gpu,
        covered=started.covered,
        refine=refine,
        names=words.vocabulary.names,
        speed=speed,
    )


def _stays(frame: Frame) -> bool:
    """Whether the labels stay on the GPU: where the caller's frame is, too."""
    return isinstance(frame, DeviceFrame) and not frame.decoded


def _classes(grid: np.ndarray, words: Competition) -> np.ndarray:
    """The logits of the classes."""
    logits = grid[: len(words.vocabulary)]
    if words.vocabulary.unused:
        logits = logits.copy()
        logits[list(words.vocabulary.unused)] = -1  # The smallest cosine never wins.
    return logits


def _rivals(grid: np.ndarray, words: Competition) -> Rivals:
    return Rivals(grid[len(words.vocabulary) : words.competing], grid[words.competing :], words.calibration)


class _Later:
    """A value of a result that is made when it is first read; see `pixelclip_sdk.lazy.Lazy`."""

    def __init__(
        self, make: Callable[[], Any], shape: tuple[int, ...] = (), dtype: np.dtype[Any] | None = None
    ) -> None:
        self.numpy, self.shape, self.dtype = make, shape, dtype

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        return np.array(array, dtype) if copy else np.asarray(array, dtype)  # NumPy 1 knows no copy=None.

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any]]:
        return _same, (self.numpy(),)


def _same(value: Any) -> Any:
    return value
