"""Frames that wait for the thread of an engine on a GPU, and which of them go through the model together."""

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.device.frames import DeviceFrame
from pixelclip_sdk.device.kernels import Pixels
from pixelclip_sdk.device.slots import Slot
from pixelclip_sdk.device.started import Started
from pixelclip_sdk.smoothing import Turn

__all__ = ["Ask", "Asks", "Frame", "Size", "Words"]

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


@dataclasses.dataclass(eq=False, repr=False)
class Ask:
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

    def is_like(self, other: "Ask") -> bool:
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


class Asks:
    """A queue of frames. Safe to use from several threads."""

    def __init__(self) -> None:
        self._waiting: deque[Ask] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, ask: Ask) -> None:
        """Let a frame wait."""
        with self._lock:
            self._waiting.append(ask)

    def take(self, numbers: Sequence[int]) -> list[Ask]:
        """Take the frame that has waited longest, and those that go through the model with it.

        They are as many as one of `numbers`, which ascend, or fewer than the first of them.
        """
        with self._lock:
            alike = [ask for ask in self._waiting if ask.is_like(self._waiting[0])]
            asks = alike[: max((n for n in numbers if n <= len(alike)), default=len(alike))]
            for ask in asks:
                self._waiting.remove(ask)
        return asks

    def take_back(self, ask: Ask) -> bool:
        """Take a frame out; False if it was taken before."""
        with self._lock:
            waits = ask in self._waiting
            if waits:
                self._waiting.remove(ask)
        return waits

    def take_all(self) -> list[Ask]:
        """Take all frames."""
        with self._lock:
            asks = [*self._waiting]
            self._waiting.clear()
        return asks
