"""Evaluation protocols: the paper's, sliding windows, and the SDK's `Segmenter.predict`.

`Official` and `Windows` interpolate the cosine similarities bilinearly to the photo's size (half-pixel
centres, PyTorch's ``align_corners=False``) and take the class with the largest one, without other
postprocessing.
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
from pixelclip_sdk.tiles import interpolation
from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX

__all__ = ["Official", "Protocol", "Whole", "Windows", "classify_masks", "describe", "segment"]

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]

_BATCH = 16  # windows per call of the model


@dataclass(frozen=True)
class Official:
    """PixelCLIP's protocol: scale to a short side, stretch to the model's input size, one pass.

    The official models compare on the protocol's 64×64 grid; pixelclip-lite compares on its own grid.
    """

    short_side: int = 640  # of the scaled photo, in pixels
    longest: int = 2560  # maximum of the long side
    name = "official"

    def view(self, photo: UInt8Array, spec: InputSpec) -> tuple[UInt8Array, tuple[float, float]]:
        """Returns the model's input `(h, w, 3)` and the share of it that the photo covers."""
        scaled = _resized(photo, _scaled_size(photo.shape, self.short_side, self.longest))
        return _stretched(scaled, (spec.height, spec.width)), (1.0, 1.0)


@dataclass(frozen=True)
class Whole:
    """`Segmenter.predict` itself: one pass over the whole photo at the model's input size.

    Attributes:
        refine: The segmenter's option of that name; None for its default.
    """

    refine: str | None = None
    name = "whole"

    def options(self) -> dict[str, Any]:
        """Returns the keyword arguments of `Segmenter.predict`."""
        return {} if self.refine is None else {"refine": self.refine}

    def view(self, photo: UInt8Array, spec: InputSpec) -> tuple[UInt8Array, tuple[float, float]]:
        """Returns the model's input `(h, w, 3)` and the share of it that the photo covers."""
        return fit(photo, spec), covered((photo.shape[0], photo.shape[1]), spec)


@dataclass(frozen=True)
class Windows:
    """Sliding windows of the model's input size; similarities are averaged where windows overlap."""

    short_side: int  # of the scaled photo, in pixels
    stride: int  # distance between windows, in pixels
    name = "windows"


Protocol = Official | Whole | Windows


def describe(protocol: Protocol, spec: InputSpec) -> dict[str, Any]:
    """Returns the settings of a protocol as JSON values, to repeat an evaluation."""
    window = [spec.height, spec.width] if isinstance(protocol, Windows) else None
    postprocessing = "bilinear interpolation of the cosine similarities to the photo's size, argmax"
    if isinstance(protocol, Whole):
        postprocessing = "that of Segmenter.predict"
    return {
        "name": protocol.name,
        **dataclasses.asdict(protocol),
        "window": window,
        "postprocessing": postprocessing,
    }


def segment(
    protocol: Official | Windows, photo: UInt8Array, text: Float32Array, backend: Backend, spec: InputSpec
) -> npt.NDArray[np.integer]:
    """Predicts the class of each pixel: photo `(H, W, 3)` RGB, text `(K, D)` unit rows → `(H, W)`.

    Raises:
        PixelClipError: The windows are larger than the scaled photo or leave gaps, or the backend failed.
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
    """Predicts the class of each ground-truth mask (paper, table 2), to score embeddings without borders.

    The features inside a mask are averaged, weighted by the share of each cell that the mask covers. The
    whole mask gets the class with the most similar embedding. All pixels of a value of `truth` `(H, W)` are
    one mask; see `segment` for the other arguments. Returns `(H, W)` uint8.
    """
    image, share = protocol.view(photo, spec)
    features = backend.features(image[None])[0]
    down, across = (
        _shares(features.shape[axis], features.shape[axis] * share[axis], photo.shape[axis])
        for axis in (0, 1)
    )
    predicted = truth.copy()
    for value in np.setdiff1d(truth, (BACKGROUND, IGNORE_INDEX)):
        mask = truth == value
        weights = down @ mask.astype(np.float32) @ across.T
        embedding = np.tensordot(weights, features, axes=2)
        predicted[mask] = int((text @ embedding).argmax())
    return predicted


def _slide(
    protocol: Windows, photo: UInt8Array, text: Float32Array, backend: Backend, spec: InputSpec
) -> Float32Array:
    """Returns the mean similarities of all windows at the scaled photo's size: `(K, H, W)`."""
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
    batch = spec.batch or _BATCH  # a backend with a fixed batch pads the last one
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
    """Returns the first pixel of each window along one side; the last window ends at the edge."""
    return [*range(0, length - window, stride), length - window]


def _scaled_size(shape: tuple[int, ...], short_side: int, longest: int | None = None) -> tuple[int, int]:
    """Returns the scaled size `(H, W)`, rounded like detectron2."""
    scale = short_side / min(shape[:2])
    if longest is not None and max(shape[:2]) * scale > longest:
        scale = longest / max(shape[:2])
    return max(int(shape[0] * scale + 0.5), 1), max(int(shape[1] * scale + 0.5), 1)


def _resized(photo: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resizes bilinearly, with antialiasing when shrinking."""
    return np.asarray(Image.fromarray(photo).resize(size[::-1], Image.Resampling.BILINEAR))


def _stretched(photo: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """Resizes bilinearly without antialiasing, like `torch.nn.functional.interpolate` in the official code.

    The official code keeps floats; here the result is rounded to 8 bits.
    """
    rows, columns = _bilinear(photo.shape[0], size[0]), _bilinear(photo.shape[1], size[1])
    channels = rows @ photo.transpose(2, 0, 1).astype(np.float32) @ columns.T
    return np.ascontiguousarray(np.rint(channels).astype(np.uint8).transpose(1, 2, 0))


def _bilinear(points: int, pixels: int) -> Float32Array:
    """Returns the `(pixels, points)` matrix of a linear interpolation: half-pixel centres, edges repeated."""
    return interpolation(points, (np.arange(pixels) + 0.5) * points / pixels - 0.5)


def _shares(cells: int, span: float, pixels: int) -> Float32Array:
    """Returns the `(cells, pixels)` share of each pixel in each cell; the photo covers `span` cells."""
    edges = np.linspace(0, span, pixels + 1)
    low, high = np.arange(cells)[:, None], np.arange(1, cells + 1)[:, None]
    overlap = np.minimum(edges[1:], high) - np.maximum(edges[:-1], low)
    return (np.maximum(overlap, 0) * (pixels / span)).astype(np.float32)
