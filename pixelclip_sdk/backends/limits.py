"""Bookkeeping of a TensorRT engine: its shape limits, and the words on the GPU.

Plain Python and numpy, so that it can be tested without a GPU.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.engine import EngineInfo
from pixelclip_sdk.errors import BackendError

IMAGE, TEXT = "image", "text"

Range = tuple[int, int]
_FEWEST = 32
_TENSORS = {IMAGE: ("uint8", 4), TEXT: ("float32", 2), "logits": ("float32", 4), "features": ("float32", 4)}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Minimum and maximum that an engine accepts: images per call, height and width in pixels, classes K."""

    batch: Range
    height: Range
    width: Range
    classes: Range

    @classmethod
    def of(cls, info: EngineInfo, embedding_dim: int) -> "Limits":
        """Read the limits from a sidecar; raise BackendError if it is not that of an image encoder."""
        for name, (dtype, rank) in _TENSORS.items():
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
        fixed = self.height[0] == self.height[1] and self.width[0] == self.width[1]
        return (self.height[0], self.width[0]) if fixed else None

    def pieces(self, count: int) -> Iterator[tuple[slice, int]]:
        """Split a batch into pieces that the engine accepts.

        Yields the slice of a piece and the batch size to run it with: at least the engine's minimum.
        """
        least, most = self.batch
        for start in range(0, count, most):
            stop = min(start + most, count)
            yield slice(start, stop), max(stop - start, least)

    def texts(self, count: int, hint: str) -> int:
        """Return the number of texts to run `count` classes with: at least the engine's minimum.

        Above the engine's maximum raises BackendError; the message ends with `hint`.
        """
        least, most = self.classes
        if count > most:
            raise BackendError(f"{count} classes; this engine takes at most {most}. {hint}")
        return max(count, least)

    def check_size(self, height: int, width: int, hint: str) -> None:
        """Raise BackendError, with a message that ends with `hint`, unless the engine takes this size."""
        for name, value, (least, most) in (("height", height, self.height), ("width", width, self.width)):
            if not least <= value <= most:
                raise BackendError(
                    f"images are {height}×{width}; this engine takes a {name} of {least} to {most}. {hint}"
                )


def padded(count: int) -> int:
    """Return a number of texts that is at least `count`, out of a few: 32, 64, 128 and so on.

    Other words then rarely need another CUDA graph.
    """
    return max(1 << (count - 1).bit_length(), _FEWEST)


class TextSlot:
    """Remembers the text embeddings on the GPU, so that they are copied only when they change."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Record that the content on the GPU is unknown."""
        self._source: npt.NDArray[np.float32] | None = None
        self._content = np.empty((0, 0), np.float32)

    def holds(self, text: npt.NDArray[np.float32]) -> bool:
        """Return whether these embeddings are on the GPU, by content."""
        # A read-only array that owns its memory, such as a Vocabulary's, cannot have changed.
        if text is self._source and not text.flags.writeable and text.base is None:
            return True
        return np.array_equal(text, self._content)

    def remember(self, text: npt.NDArray[np.float32]) -> None:
        """Record that these embeddings are on the GPU now."""
        self._source = text
        self._content = text.copy()
