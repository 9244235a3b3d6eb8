"""What an engine of bounded shapes needs besides CUDA: its limits, and which words the GPU has.

Plain Python and numpy, so that it can be tested without a GPU.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.engine import EngineInfo
from pixelclip_sdk.errors import BackendError

__all__ = ["IMAGE", "TEXT", "Limits", "Recent", "TextSlot"]

IMAGE, TEXT = "image", "text"

Range = tuple[int, int]
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Least and largest sizes that an engine takes.

    Attributes:
        batch: Pictures at once.
        height: Pixels.
        width: Pixels.
        classes: Texts, K.
    """

    batch: Range
    height: Range
    width: Range
    classes: Range

    @classmethod
    def of(cls, info: EngineInfo, embedding_dim: int) -> "Limits":
        """The limits that a sidecar tells.

        Raises:
            BackendError: Its inputs and outputs are not those of a bundle's image encoder.
        """
        expected = {
            IMAGE: ("uint8", 4),
            TEXT: ("float32", 2),
            "logits": ("float32", 4),
            "features": ("float32", 4),
        }
        for name, (dtype, rank) in expected.items():
            tensor = info.tensor(name)
            if tensor.dtype != dtype or len(tensor.shape) != rank:
                raise BackendError(
                    f"the engine's {name} is {tensor.dtype} with {len(tensor.shape)} dimensions; expected "
                    f"{dtype} with {rank}. Export the bundle and compile the engine again."
                )
        image, text = info.tensor(IMAGE).profile, info.tensor(TEXT).profile
        if image is None or text is None:
            raise BackendError("image and text are outputs of the engine; expected inputs")
        if image[2][3] != 3 or text[2][1] != embedding_dim:
            raise BackendError(
                f"the engine takes images {image[2]} and texts {text[2]}; expected 3 channels and "
                f"embeddings {embedding_dim} wide. Compile the engine from this bundle."
            )
        batch, height, width = ((image[0][axis], image[2][axis]) for axis in range(3))
        return cls(batch, height, width, (text[0][0], text[2][0]))

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The only input size `(H, W)`, or None if there are several."""
        if self.height[0] == self.height[1] and self.width[0] == self.width[1]:
            return self.height[0], self.width[0]
        return None

    def pieces(self, count: int) -> Iterator[tuple[slice, int]]:
        """Cut a batch into pieces the engine takes.

        Yields:
            A piece's pictures, and the number of pictures the engine has to be given: more than the piece
            has if the engine takes no fewer.
        """
        least, most = self.batch
        for start in range(0, count, most):
            stop = min(start + most, count)
            yield slice(start, stop), max(stop - start, least)

    def texts(self, count: int, hint: str) -> int:
        """Number of texts the engine has to be given for `count` classes: more if it takes no fewer.

        Raises:
            BackendError: It takes fewer. `hint` says what to do.
        """
        least, most = self.classes
        if count > most:
            raise BackendError(f"{count} classes; this engine takes at most {most}. {hint}")
        return max(count, least)

    def check_size(self, height: int, width: int, hint: str) -> None:
        """Check an input size.

        Raises:
            BackendError: The engine does not take it. `hint` says what to do.
        """
        for name, value, (least, most) in (("height", height, self.height), ("width", width, self.width)):
            if not least <= value <= most:
                raise BackendError(
                    f"images are {height}×{width}; this engine takes a {name} of {least} to {most}. {hint}"
                )


class TextSlot:
    """Remembers which words lie on the GPU, so that they are sent again only when they change."""

    def __init__(self) -> None:
        self._source: npt.NDArray[np.float32] | None = None
        self._content = np.empty((0, 0), np.float32)

    def holds(self, text: npt.NDArray[np.float32]) -> bool:
        """Whether these words, by content, were the last that were remembered."""
        # An array that owns its memory and cannot be written has not changed: a Vocabulary's.
        if text is self._source and not text.flags.writeable and text.base is None:
            return True
        return np.array_equal(text, self._content)

    def remember(self, text: npt.NDArray[np.float32]) -> None:
        """These words are there now."""
        self._source = text
        self._content = text.copy()

    def forget(self) -> None:
        """Nobody knows what is there."""
        self._source = None
        self._content = np.empty((0, 0), np.float32)


class Recent(Generic[Value]):
    """The values of the last few keys; one that is pushed out is released.

    Args:
        most: Values to keep.
        release: Called with a value that is pushed out or cleared.
    """

    def __init__(self, most: int, release: Callable[[Value], None]) -> None:
        self._most = most
        self._release = release
        self._values: dict[tuple[int, ...], Value] = {}

    def get(self, key: tuple[int, ...], make: Callable[[], Value]) -> Value:
        """The key's value, made if there is none. It becomes the most recent."""
        if key in self._values:
            value = self._values.pop(key)
        else:
            # Room first: on a GPU both together may be too much.
            while len(self._values) >= self._most:
                self._release(self._values.pop(next(iter(self._values))))
            value = make()
        self._values[key] = value
        return value

    def clear(self) -> None:
        """Release all."""
        while self._values:
            self._release(self._values.popitem()[1])
