"""Backend: the interface of an inference engine.

The base class checks inputs and outputs (dtypes, shapes, finite values), so that every engine raises the same
errors. A subclass computes.
"""

import abc
import dataclasses
import os
import re
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.backends.encoder import DeviceEncoder
from pixelclip_sdk.backends.fork import check_process
from pixelclip_sdk.errors import BackendError, BackendUnavailableError

__all__ = ["Backend", "Device", "batches", "joined"]

Float32Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Device:
    """What runs a model: kind ``"cpu"``, ``"gpu"``, ``"npu"`` or ``"auto"``, and the GPU's number from 0."""

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, text: str) -> "Device":
        """Read ``"auto"``, ``"cpu"``, ``"npu"``, ``"gpu"`` or ``"gpu:1"``; ``"cuda"`` is also a ``"gpu"``."""
        if text in ("auto", "cpu", "npu"):
            return cls(text)
        match = re.fullmatch(r"(?:gpu|cuda)(?::([0-9]{1,4}))?", text) if isinstance(text, str) else None
        if match is None:
            raise BackendUnavailableError(
                f'device is {text!r}; expected "auto", "cpu", "gpu", "cuda", "npu", or one GPU, e.g. "gpu:1"'
            )
        return cls("gpu", int(match[1] or 0))

    def __str__(self) -> str:
        return f"gpu:{self.index}" if self.kind == "gpu" else self.kind


class Backend(abc.ABC):
    """A loaded image encoder. Safe to call from several threads at once.

    Subclass it to run a model with another engine, and pass the object to `Segmenter`: implement
    `description`, `_logits` and `_features`. The base class checks every input and output.

    Args:
        embedding_dim: Width D of the embeddings.
        multiple: Input height and width must be multiples of this number of pixels.
        fixed_size: The only input size `(H, W)` that the engine accepts, or None for any.

    Attributes:
        name: Short name of the engine, e.g. ``"onnx"``.
        max_classes: Most texts that the engine takes at a time; None for any number.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import FakeBackend
        >>> backend = FakeBackend(stride=8)  # A Backend that needs no model: D = 3, one cell per 8×8 pixels.
        >>> images = np.full((1, 16, 24, 3), (255, 0, 0), np.uint8)
        >>> backend.features(images).shape
        (1, 2, 3, 3)
    """

    name = "custom"
    max_classes: int | None = None

    def __init__(
        self, *, embedding_dim: int, multiple: int, fixed_size: tuple[int, int] | None = None
    ) -> None:
        self.embedding_dim = embedding_dim
        self.multiple = multiple
        self.fixed_size = fixed_size
        self._closed = False
        self._process = os.getpid()

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """Human-readable engine, device and thread count."""

    @abc.abstractmethod
    def _logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array: ...

    @abc.abstractmethod
    def _features(self, images: npt.NDArray[np.uint8]) -> Float32Array: ...

    def logits(self, images: npt.NDArray[np.uint8], text: Float32Array) -> Float32Array:
        """Compute the cosine between every grid cell and every text embedding.

        Args:
            images: `(N, H, W, 3)` uint8, RGB, 0–255.
            text: `(K, D)` float32, unit rows.

        Returns:
            `(N, K, h, w)` float32, −1…1.

        Raises:
            BackendError: The engine is closed, an array has another dtype or shape, the engine failed, or its
                output has another shape or is not finite.
        """
        self._check_images(images)
        if text.dtype != np.float32 or text.ndim != 2 or text.shape[1] != self.embedding_dim or not len(text):
            raise BackendError(
                f"text is {text.dtype} {text.shape}; expected float32 (K, {self.embedding_dim}) with K ≥ 1"
            )
        logits = self._logits(images, text)
        self._check_output("logits", logits, (len(images), len(text), None, None))
        return logits

    def features(self, images: npt.NDArray[np.uint8]) -> Float32Array:
        """Compute the embedding of every grid cell.

        Args:
            images: `(N, H, W, 3)` uint8, RGB, 0–255.

        Returns:
            `(N, h, w, D)` float32.

        Raises:
            BackendError: The engine is closed, the array has another dtype or shape, the engine failed, or
                its output has another shape or is not finite.
        """
        self._check_images(images)
        features = self._features(images)
        self._check_output("features", features, (len(images), None, None, self.embedding_dim))
        return features

    def device_encoder(self) -> "DeviceEncoder | None":
        """The same model, for images and logits in a GPU's memory; None if this engine has no such thing."""
        return None

    def shared(self, calls: int) -> "Backend":  # noqa: ARG002 - for engines that divide CPU cores
        """Return an engine for several calls at the same time: the same model with fewer threads per call.

        This engine owns the returned one and closes it. The default returns this engine.

        Args:
            calls: Number of calls at the same time.

        Raises:
            BackendError: This engine is closed, or the other cannot be loaded.
        """
        return self

    def close(self) -> None:
        """Release the engine; later calls raise. Closing twice is harmless."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("this engine is closed. Load the model again.")

    def _check_images(self, images: npt.NDArray[np.uint8]) -> None:
        check_process(self._process)
        self._check_open()
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
            raise BackendError(f"images are {images.dtype} {images.shape}; expected uint8 (N, H, W, 3)")
        height, width = images.shape[1:3]
        if self.fixed_size is not None and (height, width) != self.fixed_size:
            raise BackendError(f"images are {height}×{width}; this engine takes {self.fixed_size} only")
        if height % self.multiple or width % self.multiple:
            raise BackendError(f"images are {height}×{width}; expected multiples of {self.multiple}")

    def _check_output(self, name: str, output: Float32Array, shape: tuple[int | None, ...]) -> None:
        """Raise BackendError unless the output is finite float32 of this shape; None is any size ≥ 1."""
        if not isinstance(output, np.ndarray):
            raise BackendError(
                f"{self.description} returned {name} as a {type(output).__name__}; expected an array. "
                "The model file does not match its manifest: export it again."
            )
        fits = output.dtype == np.float32 and output.ndim == len(shape) and output.size > 0
        if not fits or any(
            size not in (None, found) for size, found in zip(shape, output.shape, strict=True)
        ):
            sides = iter("hw")
            sizes = ", ".join(next(sides) if size is None else str(size) for size in shape)
            raise BackendError(
                f"{self.description} returned {name} {output.dtype} {output.shape}; expected float32 "
                f"({sizes}). The model file does not match its manifest: export it again."
            )
        with np.errstate(all="ignore"):
            total = output.sum()  # Any NaN or infinity makes the sum one, and no copy is made.
        if not np.isfinite(total):
            raise BackendError(
                f"{self.description} returned {name} with NaN or infinite values. "
                "The weights are damaged, or fp16 arithmetic overflowed: export the model again, in fp32."
            )


def batches(images: npt.NDArray[np.uint8], batch: int | None) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield images `(N, H, W, 3)` in pieces of `batch` images, the last one padded; None for one piece."""
    batch = batch or len(images)
    if missing := -len(images) % batch:
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), np.uint8)])
    for start in range(0, len(images), batch):
        yield images[start : start + batch]


def joined(parts: Sequence[Float32Array], images: npt.NDArray[np.uint8], batch: int | None) -> Float32Array:
    """Put the results of `batches` together, without those of the padding.

    A graph that returns another number of images is left for the check of its outputs.
    """
    result = parts[0] if len(parts) == 1 else np.concatenate(parts)
    batch = batch or len(images)
    padded = -(-len(images) // batch) * batch
    return result[: len(images)] if len(result) == padded else result
