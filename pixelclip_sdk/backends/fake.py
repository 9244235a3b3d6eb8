"""FakeBackend: an image encoder without a model, for tests of programs that use a Segmenter."""

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend, Float32Array

__all__ = ["FakeBackend"]


class FakeBackend(Backend):
    """An encoder that embeds a cell as the direction of its mean colour.

    The embedding has D = 3: mean RGB − 127.5, scaled to unit length. The text embedding ``[1, -1, -1]/√3``
    means "red", and an image of colour patches has a known label map. Exact and deterministic.

    Args:
        stride: Pixels per grid cell; input sides must be multiples of it.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import FakeBackend, InputSpec, Segmenter, Vocabulary
        >>> rows = np.array([[1, -1, -1], [-1, -1, 1]], np.float32) / np.sqrt(np.float32(3))
        >>> colours = Vocabulary(names=("red", "blue"), embeddings=rows)
        >>> spec = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)
        >>> segmenter = Segmenter(FakeBackend(), spec, vocabulary=colours)
        >>> result = segmenter.predict(np.full((64, 64, 3), (0, 0, 255), np.uint8))
        >>> result.names[result.labels[0, 0]]
        'blue'
    """

    name = "fake"

    def __init__(self, stride: int = 8) -> None:
        super().__init__(embedding_dim=3, multiple=stride)

    @property
    def description(self) -> str:
        """Human-readable name; there is no model behind it."""
        return "fake colour encoder"

    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        n, height, width, _ = images.shape
        step = self.multiple
        cells = images.reshape(n, height // step, step, width // step, step, 3).mean(axis=(2, 4)) - 127.5
        norms = np.linalg.norm(cells, axis=-1, keepdims=True)
        return np.asarray(cells / np.maximum(norms, 1e-6), np.float32)

    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        return np.asarray(np.einsum("nhwd,kd->nkhw", self._features(images), text), np.float32)
