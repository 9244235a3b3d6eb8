"""Frame to labels on a GPU: resize, encoder, interpolation and argmax, without a way over the host.

A frame's copies and its resize run on a stream of its slot, so they overlap with the model's work on the
frame before. The model and the labels are on the engine's stream. The engine's thread starts both; frames
that wait for it go through the model together. Once every size was seen, nothing is allocated.
"""

import concurrent.futures
import contextlib
import dataclasses
import logging
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.encoder import BATCH, DeviceEncoder
from pixelclip_sdk.backends.fork import check_process
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.device.compiler import compiled
from pixelclip_sdk.device.edges import EDGE_KERNELS, Edges, Grid
from pixelclip_sdk.device.frames import DeviceFrame
from pixelclip_sdk.device.jpeg import JpegDecoder
from pixelclip_sdk.device.kept import Kept
from pixelclip_sdk.device.kernels import KERNELS, Kernels, Pixels
from pixelclip_sdk.device.slots import Slot, Slots
from pixelclip_sdk.device.smooth import SMOOTH_KERNELS, Smoothing
from pixelclip_sdk.device.started import FOUND_BYTES, Started
from pixelclip_sdk.device.tables import Resize, Upsample
from pixelclip_sdk.device.video import VideoFrames
from pixelclip_sdk.errors import BackendError, BackendUnavailableError
from pixelclip_sdk.postprocess import label_dtype, unknown_label
from pixelclip_sdk.preprocess import covered, input_size
from pixelclip_sdk.smoothing import Turn

__all__ = ["UNDER_WAY", "Pipeline", "Words", "description_of", "pipeline_of"]

_log = logging.getLogger(__name__)

# Runs of the model that are started and not ended: one computes, one waits. Frames gather meanwhile.
_RUNS = 2

UNDER_WAY = _RUNS * BATCH
"""Frames at the same time; more gain nothing."""

Frame = npt.NDArray[np.uint8] | DeviceFrame
Size = tuple[int, int]


class Words(NamedTuple):
    """What competes for pixels.

    Attributes:
        embeddings: `(K', D)` float32, unit rows: classes, and after them other words.
        names: Number of classes; other winners are unknown.
        rows: The rows that compete, ascending.
        smoothed: Number of the first rows that are smoothed over time.
        chosen: What they come from; another object starts smoothing anew.
    """

    embeddings: npt.NDArray[np.float32]
    names: int
    rows: tuple[int, ...]
    smoothed: int
    chosen: object


@dataclasses.dataclass(eq=False)
class _Ask:
    """A frame that waits for the engine's thread; see `Pipeline.start`."""

    started: Started
    frame: Frame
    pixels: Pixels
    slot: Slot
    size: Size
    spec: InputSpec
    whole: Size  # Of the model's input.
    words: Words
    threshold: float | None
    edges: bool
    download: Sequence[str]
    turn: Turn | None
    image: int = 0  # Address of the model's input.

    def is_like(self, other: "_Ask") -> bool:
        """Whether both frames can go through the model together."""
        return self.whole == other.whole and self.words.embeddings is other.words.embeddings

    def attempt(self, step: Callable[..., None], *given: Any) -> bool:
        """Do a step of the work on this frame; False if it failed, which ends the frame."""
        try:
            step(self, *given)
        except Exception as error:
            self.end(error)
            return False
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Tell who waits for the start of the work, and keep nothing: the slot may be used again at once."""
        if not hasattr(self, "started"):
            return  # It has ended.
        future = self.started.future
        del self.started, self.frame
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


class Pipeline:
    """Runs frames through an engine on its GPU. Safe to call from several threads at once.

    Attributes:
        cuda: The GPU.
        jpegs: Decodes JPEG files on it.

    Raises BackendUnavailableError if the kernels cannot be compiled or loaded.
    """

    def __init__(self, encoder: DeviceEncoder) -> None:
        self._encoder, self.cuda = encoder, encoder.cuda
        code = compiled(self.cuda.gpu.compute_capability)
        self._release = contextlib.ExitStack()
        with self.cuda.current():
            self._kernels = Kernels(self.cuda.load_kernels(code, (*KERNELS, *EDGE_KERNELS, *SMOOTH_KERNELS)))
            # The ends of the last runs of the model, the older one first.
            self._ends = deque(self.cuda.event(self._release, sleeps=True) for _ in range(_RUNS))
        self._process, self._closed = os.getpid(), False
        self._asks: deque[_Ask] = deque()
        self._asks_lock = threading.Lock()
        self._alone = False  # Whether frames go through the model one at a time, because more failed.
        self._slots = Slots(self.cuda)
        self._tables = Kept(self.cuda, encoder.stream)
        self._edges = Edges(self.cuda, self._kernels, self._tables)
        self._smoothing = Smoothing(self.cuda, self._kernels, self._tables)
        self.jpegs = JpegDecoder(self.cuda)
        encoder.attached.callback(self._close)

    def start(
        self,
        frame: Frame,
        spec: InputSpec,
        words: Words,
        threshold: float | None,
        *,
        edges: bool,
        download: Sequence[str],
        turn: Turn | None = None,
    ) -> Started:
        """Start the work on one frame, with the engine's thread.

        A frame on the host may be overwritten when this returns, one on the GPU after `Started.read`.

        Args:
            frame: `(H, W, 3)` uint8 RGB on the host, or a frame on this GPU.
            spec: Input sizes of the model.
            words: What competes.
            threshold: Pixels whose best logit is below it are unknown; None for no threshold.
            edges: Whether labels follow the edges of the frame.
            download: Arrays to copy to the host at once, for `Started.end`.
            turn: Its logits are smoothed in this turn; this waits until that is started. If it raises, the
                caller lets the Smoother forget.

        Raises:
            ImageError: The frame is on another device.
            BackendError: The engine is closed, or the GPU failed, for example for lack of memory.
        """
        check_process(self._process)
        with self.cuda.current():
            if isinstance(frame, DeviceFrame):
                frame.check(self.cuda)
            slot = self._slots.take()
            try:
                pixels = self._bring(frame, slot)
            except BaseException:
                slot.close()
                raise
        size = frame.shape[0], frame.shape[1]
        started = Started(self.cuda, self._slots, slot, covered(size, spec))
        whole = input_size(*size, spec)
        ask = _Ask(started, frame, pixels, slot, size, spec, whole, words, threshold, edges, download, turn)
        with turn.taken() if turn else contextlib.nullcontext():
            self._put(ask)
            if turn:
                self._wait_in_turn(started, turn)
        return started

    def video_frames(self) -> VideoFrames:
        """What makes frames of decoded video; the caller closes it."""
        return VideoFrames(self.cuda, self._kernels)

    def warm_up(self, size: Size, embeddings: npt.NDArray[np.float32]) -> None:
        """Run the model with each number of images that it may take at once, of its input size `(H, W)`."""

        def run() -> None:
            for number in self._encoder.batches:
                try:
                    self._encoder.encode([image] * number, size, embeddings)
                except BackendError as error:
                    if number == 1:
                        raise
                    _log.warning("%d frames together fail: %s", number, error)

        with self.cuda.current():
            slot = self._slots.take()
            image = slot.device("input", size[0] * size[1] * 3)
        self._encoder.run(run)
        self._slots.give(slot)

    def fetch(self, frame: DeviceFrame) -> npt.NDArray[np.uint8]:
        """Copy a frame from the GPU: `(H, W, 3)` uint8 RGB. It also works when the engine is closed."""
        cuda, (address, count) = self.cuda, frame.extent
        with cuda.current():
            frame.check(cuda)
            slot = self._slots.take()
            try:
                frame.before(cuda, slot.stream, slot.other)
                host = slot.pinned("frame", count)
                cuda.download(address, host, slot.stream)
                cuda.synchronize(slot.stream)
                picture = frame.read(host)
            except BaseException:
                slot.close()
                raise
            self._slots.give(slot)
        return picture

    def _bring(self, frame: Frame, slot: Slot) -> Pixels:
        """Let the slot's stream wait for a frame on the GPU, or upload one from the host."""
        if isinstance(frame, DeviceFrame):
            frame.before(self.cuda, slot.stream, slot.other)
            return frame.pixels
        host, address = slot.pinned("frame", frame.nbytes), slot.device("frame", frame.nbytes)
        np.copyto(host.reshape(frame.shape), frame)
        self.cuda.upload(host, address, slot.stream)
        return Pixels(address, frame.shape[1] * 3, 3, (0, 1, 2))

    def _wait_in_turn(self, started: Started, turn: Turn) -> None:
        """Wait until the frame's logits are smoothed as far as the next frame of the source can tell."""
        try:
            started.wait()
        except BaseException:
            with contextlib.suppress(Exception):
                started.read()  # If only this thread was interrupted, the frame is under way.
            turn.smoother.forget()
            raise

    def _put(self, ask: _Ask) -> None:
        """Let the engine's thread work on a frame."""
        try:
            with self._asks_lock:
                self._asks.append(ask)
            self._encoder.submit(self._run_next).add_done_callback(self._check)
        except (
            BaseException
        ):  # Also an interrupt: there is one call of `_run_next` for each frame that waits.
            with self._asks_lock, contextlib.suppress(ValueError):
                self._asks.remove(ask)
            raise

    def _check(self, run: "concurrent.futures.Future[None]") -> None:
        """Give the error of a call of `_run_next` to all frames that wait: none may wait for ever."""
        error = run.exception()
        if error is not None:
            with self._asks_lock:
                asks = [*self._asks]
                self._asks.clear()
            for ask in asks:
                ask.end(error)

    def _run_next(self) -> None:
        """Take the next frames through the model, if there are any. It is called once for each frame.

        The engine's thread runs this, and what it calls.
        """
        if not self._asks:
            return
        if not self._closed:
            # For the pace alone: each frame waits for its own work, which also has the errors.
            with contextlib.suppress(BackendError):
                self.cuda.call("cudaEventSynchronize", self._ends[0])
        asks = self._next()
        try:
            if ready := [ask for ask in asks if ask.attempt(self._prepare)]:
                self._encode(ready)
        except BaseException as error:
            for ask in asks:
                ask.end(error)
            raise

    def _next(self) -> list[_Ask]:
        """The frame that has waited longest, and those that go through the model with it."""
        with self._asks_lock:
            alike = [ask for ask in self._asks if ask.is_like(self._asks[0])]
            numbers = (1,) if self._alone else self._encoder.batches
            asks = alike[: max((n for n in numbers if n <= len(alike)), default=len(alike))]
            for ask in asks:
                self._asks.remove(ask)
        return asks

    def _prepare(self, ask: _Ask) -> None:
        """Start everything that does not need the model. The engine's stream waits for it."""
        if self._closed:
            raise BackendError("this engine is closed. Load the model again.")
        self._smoothing.free_gone()
        cuda, slot = self.cuda, ask.slot
        ask.image = slot.device("input", ask.whole[0] * ask.whole[1] * 3)
        table, rows, columns = self._tables.resize(
            ("resize", ask.size, ask.spec), lambda: Resize.of(ask.size, ask.spec)
        )
        self._kernels.resize(ask.pixels, table, rows, columns, ask.image, slot.stream)
        if ask.edges:
            self._edges.read(ask.pixels, ask.size, slot)
        cuda.call("cudaEventRecord", slot.ready, slot.stream)
        cuda.wait(self._encoder.stream, slot.ready)

    def _encode(self, asks: list[_Ask]) -> bool:
        """Start the model on prepared frames of one size, and what follows it; False if the model failed."""
        try:
            images = [ask.image for ask in asks]
            encoded = self._encoder.encode(images, asks[0].whole, asks[0].words.embeddings)
        except Exception as error:
            if len(asks) == 1:
                asks[0].end(error)
                return False
            ran = [self._encode([ask]) for ask in asks]
            if any(ran):  # Else their number is not the reason.
                self._alone = True
                _log.warning("%d frames together failed, from now on one at a time: %s", len(asks), error)
            return True
        for ask, address in zip(asks, encoded.addresses, strict=True):
            if ask.attempt(self._label, address, encoded.grid):
                ask.end()
        self._ends.rotate(-1)
        with contextlib.suppress(BackendError):
            self.cuda.call("cudaEventRecord", self._ends[-1], self._encoder.stream)
        return True

    def _label(self, ask: _Ask, logits: int, grid: tuple[int, int]) -> None:
        """Start to make labels of logits on the engine's stream, and to copy them where they are wanted."""
        cuda, stream, slot, words, size = self.cuda, self._encoder.stream, ask.slot, ask.words, ask.size
        started, part = ask.started, ask.started.covered
        rows, columns = self._tables.upsample(
            ("label", grid, part, size), lambda: Upsample.of(grid, part, size)
        )
        classes = self._tables.array(("rows", words.rows), lambda: np.array(words.rows, np.int32))
        started.shapes = shapes = {
            "labels": (size, np.dtype(label_dtype(words.names))),
            "scores": (size, np.dtype(np.float32)),
            "logits": ((len(words.embeddings), *grid), np.dtype(np.float32)),
        }
        out = {name: slot.device(name, started.size_of(name)) for name in (*shapes, "found")}
        cuda.call("cudaMemsetAsync", out["found"], 0, FOUND_BYTES, stream)
        self._kernels.check_finite(logits, math.prod(shapes["logits"][0]), out["found"], stream)
        if ask.turn:
            given = (logits, (words.smoothed, *grid), ask.image, ask.whole, out["found"], stream)
            self._smoothing.blend(ask.turn, words.chosen, *given)
        target: dict[str, Any] = {
            "threshold": ask.threshold,
            "names": words.names,
            "unknown": unknown_label(words.names),
            "labels": out["labels"],
            "scores": out["scores"],
            "stream": stream,
        }
        count = len(words.rows)
        self._kernels.label(logits, grid, (classes, count), rows, columns, size, **target)
        if ask.edges:
            self._edges.relabel(Grid(logits, grid, part, classes, count), size, slot, **target)
        # The engine's next run overwrites its logits.
        cuda.copy(logits, out["logits"], started.size_of("logits"), stream)
        cuda.call("cudaEventRecord", slot.done, stream)
        if ask.download:
            started.begin(ask.download)

    def _close(self) -> None:
        """Free tables and slots. The engine has no more work; it holds the lock."""
        if os.getpid() != self._process:
            return  # A forked child cannot use its parent's GPU context.
        self._closed = True
        self.jpegs.close()
        with contextlib.suppress(BackendError), self.cuda.current():
            self._slots.close()
            self._edges.close()
            self._smoothing.close()
            self._tables.close()
            self._release.close()


_pipelines: "weakref.WeakKeyDictionary[Backend, Pipeline | BackendUnavailableError]" = (
    weakref.WeakKeyDictionary()
)
_lock = threading.Lock()


def pipeline_of(engine: Backend) -> Pipeline | BackendUnavailableError | None:
    """Return the pipeline around an engine, made on the first call.

    None for engines without one, as on CPUs. An error, which was logged, if the machine lacks something.
    """
    encoder = engine.device_encoder()
    if encoder is None:
        return None
    with _lock:
        found = _pipelines.get(engine)
        if found is None:
            try:
                found = Pipeline(encoder)
                _log.info("%s: frames and labels stay on the GPU", engine.description)
            except BackendUnavailableError as error:
                found = error
                _log.warning(
                    "frames are resized and labels are made on the CPU, which takes longer: %s", error
                )
            _pipelines[engine] = found
    return found


def description_of(engine: Backend) -> str:
    """The engine's description, and what decodes files on its GPU, as far as that was chosen."""
    found = _pipelines.get(engine)
    jpegs = found.jpegs.description if isinstance(found, Pipeline) else ""
    return engine.description + (f", JPEG by {jpegs}" if jpegs else "")
