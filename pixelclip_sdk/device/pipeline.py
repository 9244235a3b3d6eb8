"""Frame to labels on a GPU: resize, encoder, interpolation and argmax, without a way over the host.

A frame's copies and its resize run on a stream of its slot, so they overlap with the model's work on the
frame before. The model and the labels are on the engine's stream. The engine's thread starts both; frames
that wait for it go through the model together. Once every size was seen, nothing is allocated.
"""

import concurrent.futures
import contextlib
import logging
import math
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.encoder import BATCH, DeviceEncoder
from pixelclip_sdk.backends.fork import check_process
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.device.asks import Ask, Asks, Frame, Size, Words
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

__all__ = ["UNDER_WAY", "Pipeline", "description_of", "pipeline_of"]

_log = logging.getLogger(__name__)

# Runs of the model that are started and not ended: one computes, one waits. Frames gather meanwhile.
_RUNS = 2

UNDER_WAY = _RUNS * BATCH
"""Frames at the same time; more gain nothing."""


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
        self._asks = Asks()
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
        ask = Ask(started, frame, pixels, slot, size, spec, whole, words, threshold, edges, download, turn)
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
                    if number == self._encoder.batches[0]:
                        raise
                    self._only_alone(number, error)

        with self.cuda.current(), contextlib.ExitStack() as release:
            image = self.cuda.device_memory(size[0] * size[1] * 3, release)
            self._encoder.run(run)

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

    def _put(self, ask: Ask) -> None:
        """Let the engine's thread work on a frame."""
        started = ask.started
        try:
            self._asks.put(ask)
            self._encoder.submit(self._run_next).add_done_callback(self._check)
        except BaseException as error:  # Also an interrupt: each frame that waits has a call of `_run_next`.
            waited = self._asks.take_back(ask)
            if waited:
                ask.end(BackendError("the work on this frame was not started"))
            if waited or isinstance(error, BackendError):  # Else it may not even have begun to wait.
                with contextlib.suppress(Exception):
                    started.wait()  # This closes its slot.
            raise

    def _check(self, run: "concurrent.futures.Future[None]") -> None:
        """Give the error of a call of `_run_next` to all frames that wait: none may wait for ever."""
        error = run.exception()
        if error is not None:
            for ask in self._asks.take_all():
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
        asks = self._asks.take((1,) if self._alone else self._encoder.batches)
        try:
            if ready := [ask for ask in asks if ask.attempt(self._prepare)]:
                self._encode(ready)
        except BaseException as error:
            for ask in asks:
                ask.end(error)
            raise

    def _prepare(self, ask: Ask) -> None:
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

    def _encode(self, asks: list[Ask]) -> bool:
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
                self._only_alone(len(asks), error)
            return True
        for ask, address in zip(asks, encoded.addresses, strict=True):
            if ask.attempt(self._label, address, encoded.grid):
                ask.end()
        self._ends.rotate(-1)
        with contextlib.suppress(BackendError):
            self.cuda.call("cudaEventRecord", self._ends[-1], self._encoder.stream)
        return True

    def _only_alone(self, number: int, error: Exception) -> None:
        self._alone = True
        _log.warning("%d frames together failed, from now on one at a time: %s", number, error)

    def _label(self, ask: Ask, logits: int, grid: tuple[int, int]) -> None:
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
