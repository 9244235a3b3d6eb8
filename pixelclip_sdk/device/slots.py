"""Slots: everything that one frame needs on the GPU besides the model. They are used again and again."""

import contextlib
import os

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.errors import BackendError

__all__ = ["Buffers", "Slot", "Slots"]


class Buffers:
    """Memory on the GPU by name. It only grows."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._kept: dict[str, tuple[int, int, contextlib.ExitStack]] = {}

    def get(self, name: str, size: int) -> int:
        """Address of a buffer of at least `size` bytes."""
        address, kept, old = self._kept.get(name, (0, -1, contextlib.ExitStack()))
        if kept < size:
            self._kept.pop(name, None)
            old.close()  # Freeing waits for the work that uses it.
            release = contextlib.ExitStack()
            address = self._cuda.device_memory(max(size, 1), release)
            self._kept[name] = address, size, release
        return address

    def close(self) -> None:
        """Free all of it."""
        while self._kept:
            with contextlib.suppress(BackendError):
                self._kept.popitem()[1][2].close()


class Slot:
    """A stream for copies, events, and buffers that only grow. One thread uses it at a time.

    Attributes:
        stream: Uploads, resizes and downloads; the model has a stream of its own.
        ready: The model's input is complete.
        done: Labels and logits are complete.
        other: An event for the streams of other libraries.
        consumers: Streams of other libraries that may still read the labels; None is an unknown stream.
    """

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._release = contextlib.ExitStack()
        self._process = os.getpid()
        self._device = Buffers(cuda)
        self._pinned: dict[str, tuple[npt.NDArray[np.uint8], contextlib.ExitStack]] = {}
        self.consumers: set[int | None] = set()
        try:
            self.stream = cuda.stream(self._release)
            self.ready, self.done, self.other = (cuda.event(self._release) for _ in range(3))
        except BackendError:
            self._release.close()
            raise

    def device(self, name: str, size: int) -> int:
        """Address of a buffer of at least `size` bytes on the GPU."""
        return self._device.get(name, size)

    def pinned(self, name: str, size: int) -> npt.NDArray[np.uint8]:
        """The first `size` bytes of a page-locked buffer."""
        memory, old = self._pinned.get(name, (np.empty(0, np.uint8), contextlib.ExitStack()))
        if len(memory) < size:
            self._pinned.pop(name, None)
            old.close()
            release = contextlib.ExitStack()
            memory = self._cuda.pinned_memory(size, release)
            self._pinned[name] = memory, release
        return memory[:size]

    def wait_for_consumers(self) -> None:
        """Let later work wait until other libraries have read the labels that were here."""
        while self.consumers:
            stream = self.consumers.pop()
            try:
                if stream is None:
                    raise BackendError("unknown")
                self._cuda.call("cudaEventRecord", self.other, stream)
                self._cuda.wait(self.stream, self.other)
            except BackendError:  # The stream is unknown, or is gone.
                self._cuda.synchronize_all()

    def close(self) -> None:
        """Wait for the work under way, then free everything."""
        if os.getpid() != self._process:
            return  # A forked child cannot use its parent's GPU context.
        with contextlib.suppress(BackendError), self._cuda.current():
            with contextlib.suppress(BackendError):
                self._cuda.synchronize(self.stream)
            self._device.close()
            releases = [release for _, release in self._pinned.values()]
            self._pinned.clear()
            for release in (*releases, self._release):
                with contextlib.suppress(BackendError):
                    release.close()


class Slots:
    """The slots of a pipeline that are free. A frame takes one, or makes one."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        # Without a lock, because the garbage collector may give a slot back in the middle of anything. Its
        # `append` and `pop` are atomic.
        self._free: list[Slot] = []
        self._closed = False

    def take(self) -> Slot:
        """Return a slot that nobody uses. The GPU is current."""
        try:
            slot = self._free.pop()
        except IndexError:
            return Slot(self._cuda)
        slot.wait_for_consumers()
        # For the work of a result that nobody waited for: smoothing needs it for the next frame.
        self._cuda.wait(slot.stream, slot.done)
        return slot

    def give(self, slot: Slot) -> None:
        """Take a slot back."""
        self._free.append(slot)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Free the slots, and later those that are in use."""
        self._closed = True
        while self._free:
            with contextlib.suppress(IndexError):
                self._free.pop().close()
