"""How a photo becomes labels: by the paper's protocol, by sliding windows, or as the SDK does it.

All end alike: the cosines are interpolated bilinearly to the photo's own size (half-pixel centres, PyTorch's
``align_corners=False``), then the largest wins. Nothing else is done to them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.errors import PixelClipError
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.preprocess import covered, fit
from training.evaluation.metrics import IGNORED

__all__ = ["Official", "Protocol", "Whole", "Windows", "classify_masks", "describe", "segment"]

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

_BATCH = 16  # windows that go through the model together


@dataclass(frozen=True)
class Official:
    """PixelCLIP's: scaled by the short side, squashed to the model's size, one pass.

    The official models' encoders compare on a grid of 64×64, as the protocol asks; pixelclip-lite compares on
    its own grid.

    Attributes:
        short_side: Of the scaled photo, in pixels.
        longest: Its long side is at most this, in pixels.
    """

    short_side: int = 640
    longest: int = 2560
    name = "official"

    def view(self, photo: UInt8Array, spec: InputSpec) -> tuple[UInt8Array, tuple[float, float]]:
        """The model's input `(h, w, 3)`, and the share of it that the photo covers."""
        scaled = _resized(photo, _scaled_size(photo.shape, self.short_side, self.longest))
        return _squashed(scaled, (spec.height, spec.width)), (1.0, 1.0)


@dataclass(frozen=True)
class Whole:
    """What `Segmenter.predict` does: one pass over the whole photo, at the size that the model likes."""

    name = "whole"

    def view(self, photo: UInt8Array, spec: InputSpec) -> tuple[UInt8Array, tuple[float, float]]:
        """The model's input `(h, w, 3)`, and the share of it that the photo covers."""
        return fit(photo, spec), covered((photo.shape[0], photo.shape[1]), spec)


@dataclass(frozen=True)
class Windows:
    """Sliding windows of the model's size over the scaled photo; cosines averaged where they overlap.

    Attributes:
        short_side: Of the scaled photo, in pixels.
        stride: Pixels from one window to the next.
    """

    short_side: int
    stride: int
    name = "windows"


Protocol = Official | Whole | Windows


def describe(protocol: Protocol, spec: InputSpec) -> dict[str, Any]:
    """All that a reader needs to do it again, JSON-ready."""
    window = [spec.height, spec.width] if isinstance(protocol, Windows) else None
    return {
        "name": protocol.name,
        **dataclasses.asdict(protocol),
        "window": window,
        "postprocessing": "bilinear interpolation of the cosines to the photo's size, argmax; nothing else",
    }


def segment(
    protocol: Protocol, photo: UInt8Array, text: Float32Array, backend: Backend, spec: InputSpec
) -> npt.NDArray[np.integer]:
    """Class of every pixel.

    Args:
        protocol: How.
        photo: `(H, W, 3)`, RGB.
        text: `(K, D)`, unit rows.
        backend: The image encoder.
        spec: The sizes it takes.

    Returns:
        `(H, W)`.

    Raises:
        PixelClipError: The windows are larger than the scaled photo or leave gaps, or the engine failed.
    """
    if isinstance(protocol, Windows):
        logits, share = _slide(protocol, photo, text, backend, spec), (1.0, 1.0)
    else:
        image, share = protocol.view(photo, spec)
        logits = backend.logits(image[None], text)[0]
    return labels_upsampled(logits, (photo.shape[0], photo.shape[1]), covered=share)


def classify_masks(
    protocol: Official | Whole,
    photo: UInt8Array,
    truth: UInt8Array,
    text: Float32Array,
    backend: Backend,
    spec: InputSpec,
) -> UInt8Array:
    """Class of every ground-truth mask: what the embeddings know when the borders are given (paper, table 2).

    The features inside each mask are averaged; a cell counts by the share of it that the mask covers, so that
    no mask is too small. Its nearest class takes all the mask's pixels.

    Args:
        protocol: How the photo is seen.
        photo: `(H, W, 3)`, RGB.
        truth: `(H, W)`; the pixels of one value are one mask.
        text: `(K, D)`, unit rows.
        backend: The image encoder.
        spec: The sizes it takes.

    Returns:
        `(H, W)` uint8.
    """
    image, share = protocol.view(photo, spec)
    features = backend.features(image[None])[0]
    down, across = (
        _shares(features.shape[axis], features.shape[axis] * share[axis], photo.shape[axis])
        for axis in (0, 1)
    )
    predicted = truth.copy()
    for value in np.setdiff1d(truth, IGNORED):
        mask = truth == value
        weights = down @ mask.astype(np.float32) @ across.T
        embedding = np.tensordot(weights, features, axes=2)
        predicted[mask] = int((text @ embedding).argmax())
    return predicted


def _slide(
    protocol: Windows, photo: UInt8Array, text: Float32Array, backend: Backend, spec: InputSpec
) -> Float32Array:
    """Mean cosines of all windows, at the scaled photo's size: `(K, H, W)`."""
    image = _resized(photo, _scaled_size(photo.shape, protocol.short_side))
    size, window = image.shape[:2], (spec.height, spec.width)
    if window[0] > size[0] or window[1] > size[1]:
        raise PixelClipError(
            f"a window of {window} does not fit into a photo scaled to {size}; "
            f"expected a short side of at least {max(window)}"
        )
    if protocol.stride > min(window):
        raise PixelClipError(
            f"a stride of {protocol.stride} leaves gaps between windows of {window}; "
            f"expected at most {min(window)}"
        )
    corners = [
        (row, column)
        for row in _starts(size[0], window[0], protocol.stride)
        for column in _starts(size[1], window[1], protocol.stride)
    ]
    total = np.zeros((len(text), *size), np.float32)
    count = np.zeros(size, np.float32)
    batch = spec.batch or _BATCH  # a backend of a fixed batch fills up the last one itself
    for first in range(0, len(corners), batch):
        places = [np.s_[r : r + window[0], c : c + window[1]] for r, c in corners[first : first + batch]]
        crops = np.stack([image[place] for place in places])
        logits = backend.logits(crops, text)
        rows, columns = _bilinear(logits.shape[2], window[0]), _bilinear(logits.shape[3], window[1])
        for place, grid in zip(places, logits, strict=True):
            total[:, *place] += rows @ grid @ columns.T
            count[place] += 1
    total /= count
    return total


def _starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along one side begin; the last ends at the edge."""
    return [*range(0, length - window, stride), length - window]


def _scaled_size(shape: tuple[int, ...], short_side: int, longest: int | None = None) -> tuple[int, int]:
    """`(H, W)` of a photo whose short side becomes `short_side`, as detectron2 rounds it."""
    scale = short_side / min(shape[:2])
    if longest is not None and max(shape[:2]) * scale > longest:
        scale = longest / max(shape[:2])
    return max(int(shape[0] * scale + 0.5), 1), max(int(shape[1] * scale + 0.5), 1)


def _resized(photo: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Bilinear, antialiased where it shrinks."""
    return np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BILINEAR))


def _squashed(photo: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Bilinear without antialiasing: what `torch.nn.functional.interpolate` does, which the protocol uses.

    The official code interpolates floats; here they are rounded to whole pixel values.
    """
    rows, columns = _bilinear(photo.shape[0], size[0]), _bilinear(photo.shape[1], size[1])
    channels = rows @ photo.transpose(2, 0, 1).astype(np.float32) @ columns.T
    return np.ascontiguousarray(np.rint(channels).astype(np.uint8).transpose(1, 2, 0))


def _bilinear(points: int, pixels: int) -> Float32Array:
    """`(pixels, points)` matrix that interpolates along one side, half-pixel centres, edges repeated."""
    position = np.clip((np.arange(pixels) + 0.5) * points / pixels - 0.5, 0, points - 1)
    return np.maximum(1 - np.abs(position[:, None] - np.arange(points)), 0).astype(np.float32)


def _shares(cells: int, span: float, pixels: int) -> Float32Array:
    """`(cells, pixels)` share of every pixel that lies in every cell; the photo covers `span` cells."""
    edges = np.linspace(0, span, pixels + 1)
    low, high = np.arange(cells)[:, None], np.arange(1, cells + 1)[:, None]
    overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return (np.maximum(overlap, 0) * (pixels / span)).astype(np.float32)
