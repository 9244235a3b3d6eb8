"""FakeBackend: a real segmenter without a model, for tests of whatever is built on one."""

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.base import Backend, Float32Array

__all__ = ["FakeBackend"]


class FakeBackend(Backend):
    """An encoder whose embedding of a cell is the direction of its mean colour.

    The embedding has D = 3: mean RGB − 127.5, scaled to unit length. The text embedding ``[1, -1, -1]/√3``
    therefore means "red", and a picture of colour patches has a known label map. Exact and
    deterministic.

    Args:
        stride: Pixels per grid cell; input sides have to be multiples of it.
    """

    def __init__(self, stride: int = 8) -> None:
        super().__init__(embedding_dim=3, multiple=stride)

    @property
    def description(self) -> str:
        """Says that this is no model."""
        return "fake colour encoder"

    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        n, height, width, _ = images.shape
        step = self.multiple
        cells = images.reshape(n, height // step, step, width // step, step, 3).mean(axis=(2, 4)) - 127.5
        norms = np.linalg.norm(cells, axis=-1, keepdims=True)
        return np.asarray(cells / np.maximum(norms, 1e-6), np.float32)

    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        return np.asarray(np.einsum("nhwd,kd->nkhw", self._features(images), text), np.float32)
