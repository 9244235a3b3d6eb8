"""ONNX Runtime's CUDA provider with images and logits on the GPU: bindings, a stream of ours, CUDA graphs."""

import contextlib
import dataclasses
import logging
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pixelclip_sdk.backends.cuda import RECORDING, Cuda
from pixelclip_sdk.backends.encoder import BATCH, DeviceEncoder, Encoded, Float32Array
from pixelclip_sdk.backends.limits import TextSlot, padded
from pixelclip_sdk.errors import BackendError

__all__ = ["GRAPH", "NO_GRAPH", "OnnxEncoder"]

_log = logging.getLogger(__name__)

GRAPH = "gpu_graph_id"
"""Key of the number of a run's CUDA graph among ONNX Runtime's run options."""
NO_GRAPH = "-1"
# ONNX Runtime keeps every graph, with its memory, until the session ends.
_MOST_GRAPHS = 16
# Another library's thread may end a recording.
_TRIES = 3


@dataclasses.dataclass(frozen=True)
class _Texts:
    """Text embeddings on the GPU, padded to one number of rows. Addresses never change: graphs have them."""

    rows: int
    address: int
    host: Any  # Page-locked, `(rows, D)` float32.
    slot: TextSlot


@dataclasses.dataclass
class _Shape:
    """Buffers and the binding of one input size, one number of images and one number of rows."""

    images: int
    logits: int
    grid: tuple[int, int]
    binding: Any
    options: Any
    tries: int  # So often may its graph be recorded; 0 if it is, or if there is none.


class OnnxEncoder(DeviceEncoder):
    """A session of ONNX Runtime that works on a stream of ours, in a thread of ours.

    Its CUDA provider has workspaces and graphs for each thread that ever ran the session, until the session
    ends. With one thread there is one graph for each shape, whoever calls.

    Args:
        cuda: The GPU.
        load: Loads the session: ``load(stream, graphs)``.
        embedding_dim: Width D of the embeddings.
        batch: The only number of images that the model takes at once; None for any.
        graphs: Whether the provider records CUDA graphs.
    """

    def __init__(
        self,
        cuda: Cuda,
        load: Callable[[int, bool], Any],
        embedding_dim: int,
        batch: int | None,
        *,
        graphs: bool,
    ) -> None:
        self._release = contextlib.ExitStack()
        with cuda.current(), RECORDING:  # Loading waits for the whole GPU.
            # Never destroyed: ONNX Runtime needs it until the last reference to the session is gone.
            batches = (1, BATCH) if batch is None else (batch,)
            super().__init__(cuda, cuda.stream(contextlib.ExitStack()), threading.RLock(), batches)
            self.session: Any = load(int(self.stream), graphs)
        self._dim, self._graphs = embedding_dim, graphs
        self._texts: dict[int, _Texts] = {}
        self._shapes: dict[tuple[int, ...], _Shape] = {}

    def encode(self, images: Sequence[int], size: tuple[int, int], text: Float32Array) -> Encoded:
        """See `DeviceEncoder.encode`."""
        if self.session is None:
            raise BackendError("this engine is closed. Load the model again.")
        batch, length = self._batch(len(images)), math.prod(size) * 3
        try:
            texts = self._put_text(text)
            key = (batch, *size, texts.rows)
            shape = self._shapes.get(key)
            if shape is None:
                shape = self._shapes[key] = self._new_shape(batch, size, texts)
            for i, image in enumerate(images):
                self.cuda.copy(image, shape.images + i * length, length, self.stream)
            self._start(shape, size)
        except BackendError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no common base class.
            many = "an image" if batch == 1 else f"{batch} images"
            raise BackendError(f"onnxruntime failed on {many} of {size}: {error}") from error
        step = texts.rows * math.prod(shape.grid) * 4
        return Encoded(tuple(shape.logits + i * step for i in range(len(images))), shape.grid)

    def _start(self, shape: _Shape, size: tuple[int, int]) -> None:
        if not shape.tries:
            self.session.run_with_iobinding(shape.binding, shape.options)
            return
        try:
            with RECORDING:
                self.session.run_with_iobinding(shape.binding, shape.options)
            shape.tries = 0
        except Exception as error:  # ONNX Runtime's errors have no common base class.
            plain = _run_options(NO_GRAPH)
            self.session.run_with_iobinding(shape.binding, plain)
            shape.tries -= 1
            if not shape.tries:
                shape.options = plain
            _log.warning("no CUDA graph for size %s, this frame ran without it: %s", size, error)

    def close(self) -> None:
        """Wait for work under way, then free the session and its buffers. Closing twice is harmless."""
        if os.getpid() != self._process:
            return  # A forked child cannot use its parent's GPU context.
        with self.lock, contextlib.suppress(BackendError), self.cuda.current():
            if self.session is not None:
                with contextlib.suppress(BackendError):
                    self.cuda.synchronize(self.stream)
            self.attached.close()
            self._shapes.clear()
            self.session = None
            self._release.close()

    def _put_text(self, text: Float32Array) -> _Texts:
        rows = padded(len(text))
        texts = self._texts.get(rows)
        if texts is None:
            size = rows * self._dim * 4
            with contextlib.ExitStack() as release:
                host = self.cuda.pinned_memory(size, release).view(np.float32).reshape(rows, self._dim)
                address = self.cuda.device_memory(size, release)
                self._release.enter_context(release.pop_all())
            texts = self._texts[rows] = _Texts(rows, address, host, TextSlot())
        if not texts.slot.holds(text):
            texts.slot.forget()  # The content is unknown until the copy is complete.
            texts.host[: len(text)] = text
            texts.host[len(text) :] = 0
            self.cuda.upload(texts.host, texts.address, self.stream)
            self.cuda.synchronize(self.stream)
            texts.slot.remember(text)
        return texts

    def _new_shape(self, batch: int, size: tuple[int, int], texts: _Texts) -> _Shape:
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry(GRAPH, NO_GRAPH)
        # Only the model knows its grid.
        images = (batch, *size, 3)
        given = {"image": np.zeros(images, np.uint8), "text": np.zeros((1, self._dim), np.float32)}
        height, width = self.session.run(["logits"], given, options)[0].shape[2:]
        shape = (batch, texts.rows, int(height), int(width))
        with contextlib.ExitStack() as release:
            address = self.cuda.device_memory(math.prod(images), release)
            logits = self.cuda.device_memory(math.prod(shape) * 4, release)
            self._release.enter_context(release.pop_all())
        binding, gpu = self.session.io_binding(), self.cuda.gpu.index
        binding.bind_input("image", "cuda", gpu, np.uint8, images, address)
        binding.bind_input("text", "cuda", gpu, np.float32, (texts.rows, self._dim), texts.address)
        binding.bind_output("logits", "cuda", gpu, np.float32, shape, logits)
        number = len(self._shapes)
        recorded = self._graphs and number < _MOST_GRAPHS
        if self._graphs and not recorded:
            _log.warning("%d shapes have CUDA graphs; size %s runs without one", _MOST_GRAPHS, size)
        options = _run_options(str(number + 1) if recorded else NO_GRAPH)
        return _Shape(address, logits, shape[2:], binding, options, _TRIES if recorded else 0)


def _run_options(graph: str) -> Any:
    import onnxruntime

    options = onnxruntime.RunOptions()
    # The caller's stream waits, not this thread. Before a fix of 2026, replaying a graph waited anyway.
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    options.add_run_config_entry(GRAPH, graph)
    return options
