"""Frame to labels on a GPU: resize, encoder, interpolation and argmax, without a way over the host.

A frame's copies and its resize run on a stream of its slot, so they overlap with the model's work on the
frame before. The model and the labels are on the engine's stream. Once every size was seen, nothing is
allocated.
"""

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.backends.encoder import DeviceEncoder
from pixelclip_sdk.backends.fork import check_process
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.device.arrays import DeviceArray
from pixelclip_sdk.device.compiler import compiled
from pixelclip_sdk.device.edges import EDGE_KERNELS, Edges, Grid
from pixelclip_sdk.device.frames import DeviceFrame
from pixelclip_sdk.device.jpeg import JpegDecoder
from pixelclip_sdk.device.kept import Kept
from pixelclip_sdk.device.kernels import KERNELS, Kernels, Pixels
from pixelclip_sdk.device.slots import Slot, Slots
from pixelclip_sdk.device.smooth import SMOOTH_KERNELS, Smoothing
from pixelclip_sdk.device.tables import Resize, Upsample
from pixelclip_sdk.device.video import VideoFrames
from pixelclip_sdk.errors import BackendError, BackendUnavailableError
from pixelclip_sdk.postprocess import label_dtype, unknown_label
from pixelclip_sdk.preprocess import covered, input_size
from pixelclip_sdk.smoothing import Turn

__all__ = ["Pipeline", "Started", "Words", "description_of", "pipeline_of"]

_log = logging.getLogger(__name__)

_FOUND_BYTES = 4

Frame = npt.NDArray[np.uint8] | DeviceFrame


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


class Started:
    """A frame under way. Its slot is used again once this object and its arrays are gone.

    Attributes:
        size: `(H, W)` of the frame.
        covered: Fractions of the grid that the frame covers.
        shapes: Shape and dtype of ``"labels"``, ``"scores"`` and ``"logits"``.
    """

    def __init__(
        self,
        cuda: Cuda,
        slot: Slot,
        part: tuple[float, float],
        shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]],
    ) -> None:
        self.covered, self.shapes = part, shapes
        self._cuda, self._slot = cuda, slot
        self._lock = threading.Lock()

    def begin(self, names: Sequence[str]) -> None:
        """Start to copy arrays to the host, after the work on the frame."""
        with self._cuda.current():
            self._cuda.wait(self._slot.stream, self._slot.done)
            for name in ("found", *names):
                address, host = self._slot.device(name, 0), self._slot.pinned(name, self._size(name))
                self._cuda.download(address, host, self._slot.stream)

    def end(self, names: Sequence[str]) -> list[np.ndarray]:
        """Wait for the arrays of `begin` and return copies.

        Raises:
            BackendError: The GPU failed, or a logit is NaN or infinite.
        """
        with self._cuda.current():
            self._cuda.synchronize(self._slot.stream)
        if self._slot.pinned("found", _FOUND_BYTES).view(np.int32)[0]:
            raise BackendError(
                "the engine returned logits with NaN or infinite values. "
                "The weights are damaged, or fp16 arithmetic overflowed: export the model again, in fp32."
            )
        return [
            self._slot.pinned(name, self._size(name))
            .view(self.shapes[name][1])
            .reshape(self.shapes[name][0])
            .copy()
            for name in names
        ]

    def array(self, name: str) -> DeviceArray:
        """An array that stays on the GPU."""
        shape, dtype = self.shapes[name]

        def before(stream: int | None) -> None:
            self._slot.consumers.add(stream)
            with self._cuda.current():
                self._cuda.wait(self._slot.stream if stream is None else stream, self._slot.done)

        def download() -> np.ndarray:
            with self._lock:
                self.begin([name])
                return self.end([name])[0]

        address, gpu = self._slot.device(name, 0), self._cuda.gpu.index
        # Whom the reader waits for is unknown: not for the engine's stream, which may be recording a graph.
        return DeviceArray(address, shape, dtype, gpu, self._slot.stream, before, download)

    def _size(self, name: str) -> int:
        if name == "found":
            return _FOUND_BYTES
        shape, dtype = self.shapes[name]
        return int(np.prod(shape)) * dtype.itemsize


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
        with self.cuda.current():
            self._kernels = Kernels(self.cuda.load_kernels(code, (*KERNELS, *EDGE_KERNELS, *SMOOTH_KERNELS)))
        self._process, self._closed = os.getpid(), False
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
        """Start the work on one frame.

        When this returns, the frame has been read and may be overwritten; its labels may not be complete.

        Args:
            frame: `(H, W, 3)` uint8 RGB on the host, or a frame on this GPU.
            spec: Input sizes of the model.
            words: What competes.
            threshold: Pixels whose best logit is below it are unknown; None for no threshold.
            edges: Whether labels follow the edges of the frame.
            download: Arrays to copy to the host at once, for `Started.end`.
            turn: Its logits are smoothed in this turn. If this raises, the caller lets the Smoother forget.

        Raises:
            ImageError: The frame is on another device.
            BackendError: The engine is closed, or the GPU failed, for example for lack of memory.
        """
        check_process(self._process)
        cuda = self.cuda
        with cuda.current():
            if isinstance(frame, DeviceFrame):
                frame.check(cuda)
            slot = self._slots.take()
            try:
                pixels = self._bring(frame, slot)
                with turn.taken() if turn else contextlib.nullcontext(), self._encoder.lock:
                    if self._closed:
                        raise BackendError("this engine is closed. Load the model again.")
                    self._smoothing.free_gone()
                    size = frame.shape[:2]
                    started = self._start(pixels, size, slot, spec, words, threshold, edges, turn)
                if download:
                    started.begin(download)
                else:
                    cuda.synchronize(slot.stream)  # Until the frame has been read.
            except BaseException:
                slot.close()
                raise
        weakref.finalize(started, self._slots.give, slot)
        return started

    def video_frames(self) -> VideoFrames:
        """What makes frames of decoded video; the caller closes it."""
        return VideoFrames(self.cuda, self._kernels)

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

    def _resize(self, pixels: Pixels, size: tuple[int, int], spec: InputSpec, out: int, stream: Any) -> None:
        """Start to resize a frame to the model's input."""
        table, rows, columns = self._tables.resize(("resize", size, spec), lambda: Resize.of(size, spec))
        self._kernels.resize(pixels, table, rows, columns, out, stream)

    def _start(
        self,
        pixels: Pixels,
        size: tuple[int, int],
        slot: Slot,
        spec: InputSpec,
        words: Words,
        threshold: float | None,
        edges: bool,
        turn: Turn | None,
    ) -> Started:
        cuda, stream = self.cuda, self._encoder.stream
        whole = input_size(*size, spec)
        image = slot.device("input", whole[0] * whole[1] * 3)
        self._resize(pixels, size, spec, image, slot.stream)
        if edges:
            self._edges.read(pixels, size, slot)
        cuda.call("cudaEventRecord", slot.ready, slot.stream)
        cuda.wait(stream, slot.ready)
        encoded = self._encoder.encode(image, whole, words.embeddings)
        part = covered(size, spec)
        rows, columns = self._tables.upsample(
            ("label", encoded.grid, part, size), lambda: Upsample.of(encoded.grid, part, size)
        )
        classes = self._tables.array(("rows", words.rows), lambda: np.array(words.rows, np.int32))
        shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "labels": (size, np.dtype(label_dtype(words.names))),
            "scores": (size, np.dtype(np.float32)),
            "logits": ((len(words.embeddings), *encoded.grid), np.dtype(np.float32)),
        }
        started = Started(cuda, slot, part, shapes)
        out = {name: slot.device(name, started._size(name)) for name in (*shapes, "found")}
        cuda.call("cudaMemsetAsync", out["found"], 0, _FOUND_BYTES, stream)
        self._kernels.check_finite(encoded.address, int(np.prod(shapes["logits"][0])), out["found"], stream)
        if turn:
            smoothed = (words.smoothed, *encoded.grid)
            given = (encoded.address, smoothed, image, whole, out["found"], stream)
            self._smoothing.blend(turn, words.chosen, *given)
        target: dict[str, Any] = {
            "threshold": threshold,
            "names": words.names,
            "unknown": unknown_label(words.names),
            "labels": out["labels"],
            "scores": out["scores"],
            "stream": stream,
        }
        count = len(words.rows)
        self._kernels.label(encoded.address, encoded.grid, (classes, count), rows, columns, size, **target)
        if edges:
            grid = Grid(encoded.address, encoded.grid, part, classes, count)
            self._edges.relabel(grid, size, slot, **target)
        # The engine's next frame overwrites its logits.
        cuda.copy(encoded.address, out["logits"], started._size("logits"), stream)
        cuda.call("cudaEventRecord", slot.done, stream)
        return started

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
