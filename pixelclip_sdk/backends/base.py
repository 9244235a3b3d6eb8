"""Backend: what an inference engine has to do.

The base class checks names, dtypes and shapes, so that every engine refuses the same input with the same
words; a subclass computes.
"""

import abc
import dataclasses
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import BackendError, BackendUnavailableError

__all__ = ["Backend", "Device"]

Float32Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Device:
    """Where a model runs.

    Attributes:
        kind: ``"cpu"``, ``"gpu"``, or ``"auto"`` for where the backend is at home.
        index: Number of the GPU, from 0.
    """

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> "Device":
        """Read ``"auto"``, ``"cpu"``, ``"gpu"`` or ``"gpu:1"``.

        Raises:
            BackendUnavailableError: It is none of them.
        """
        kind, colon, number = text.partition(":")
        if kind in ("auto", "cpu", "gpu") and not colon:
            return cls(kind)
        if kind == "gpu" and number.isdecimal():
            return cls(kind, int(number))
        raise BackendUnavailableError(f'device is {text!r}; expected "auto", "cpu", "gpu" or e.g. "gpu:1"')

    def __str__(self) -> str:
        return f"gpu:{self.index}" if self.kind == "gpu" else self.kind


class Backend(abc.ABC):
    """A loaded image encoder. Safe to call from several threads at once.

    Args:
        embedding_dim: Width D of the embeddings.
        multiple: Input sides have to be multiples of this.
        fixed_size: The only input size `(H, W)` the engine takes, or None for any.
    """

    def __init__(
        self, *, embedding_dim: int, multiple: int, fixed_size: tuple[int, int] | None = None
    ) -> None:
        self.embedding_dim = embedding_dim
        self.multiple = multiple
        self.fixed_size = fixed_size
        self._closed = False

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """What runs the model, for people: engine, device, threads."""

    @abc.abstractmethod
    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array: ...

    @abc.abstractmethod
    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array: ...

    def logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        """Cosine between every grid cell and every text embedding.

        Args:
            images: `(N, H, W, 3)` uint8, RGB, 0–255.
            text: `(K, D)` float32, unit rows.

        Returns:
            `(N, K, h, w)` float32, −1…1.

        Raises:
            BackendError: The engine is closed, an array has another dtype or shape, or the engine failed.
        """
        self._check_images(images)
        if text.dtype != np.float32 or text.ndim != 2 or text.shape[1] != self.embedding_dim or not len(text):
            raise BackendError(
                f"text is {text.dtype} {text.shape}; expected float32 (K, {self.embedding_dim}) with K ≥ 1"
            )
        logits = self._logits(images, text)
        if logits.ndim != 4 or logits.shape[:2] != (len(images), len(text)):
            raise BackendError(
                f"{self.description} gave logits {logits.shape}; "
                f"expected ({len(images)}, {len(text)}, h, w). "
                "The model's file is not what its manifest says: export it again."
            )
        return logits

    def features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        """Embedding of every grid cell.

        Args:
            images: `(N, H, W, 3)` uint8, RGB, 0–255.

        Returns:
            `(N, h, w, D)` float32.

        Raises:
            BackendError: The engine is closed, the array has another dtype or shape, or the engine failed.
        """
        self._check_images(images)
        features = self._features(images)
        if features.ndim != 4 or features.shape[0] != len(images) or features.shape[3] != self.embedding_dim:
            raise BackendError(
                f"{self.description} gave features {features.shape}; "
                f"expected ({len(images)}, h, w, {self.embedding_dim}). Export the model again."
            )
        return features

    def shared(self, calls: int) -> "Backend":  # noqa: ARG002 - for those that have cores to divide
        """The engine for that many calls at the same time: the same model, the cores divided among them.

        It belongs to this one, which closes it. Here it is this one.

        Raises:
            BackendError: This engine is closed, or another cannot be loaded.
        """
        return self

    def close(self) -> None:
        """Release the engine; later calls raise. Closing twice is harmless."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_images(self, images: npt.NDArray[np.uint8]) -> None:
        if self._closed:
            raise BackendError("this engine is closed. Load the model again.")
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise BackendError(f"images are {images.dtype} {images.shape}; expected uint8 (N, H, W, 3)")
        height, width = images.shape[1:3]
        if self.fixed_size is not None and (height, width) != self.fixed_size:
            raise BackendError(f"images are {height}×{width}; this engine takes {self.fixed_size} only")
        if height % self.multiple or width % self.multiple:
            raise BackendError(
                f"images are {height}×{width}; expected sides that are multiples of {self.multiple}"
            )
