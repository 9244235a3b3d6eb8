"""Tensors of the Open Inference Protocol: the same for `/v2` of `pixelclip serve` and for Triton.

N images of one size `(H, W)`, K classes. Plain numpy; nothing here needs the extra ``serve``.

==================  ======  =============  =================================================================
``image``           BYTES   [N]            image files, such as JPEG or PNG; or
``pixels``          UINT8   [N, H, W, 3]   RGB, 0–255
``words``           BYTES   [K]            UTF-8, one class each, synonyms after commas: "sofa, couch"; or one
                                           item that is the name of a list, such as "voc-20"
``min_confidence``  FP32    [1]            optional: pixels of a smaller confidence, 0–1, become unknown
``threshold``       FP32    [1]            optional: pixels of a smaller cosine, −1…1, become unknown
→ ``labels``        UINT8   [N, H, W]      an index into ``names``, or 255 for unknown pixels
→ ``names``         BYTES   [K]            UTF-8, the names of the classes
→ ``areas``         FP32    [N, K]         the fraction of the image that each class covers, 0–1
→ ``confidence``    FP32    [N, H, W]      0–1, that the label is right; computed only if it is asked for
==================  ======  =============  =================================================================
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.errors import ImageError, PixelClipError, VocabularyError
from pixelclip_sdk.segmentation import Segmentation
from pixelclip_sdk.support.hints import find_name
from pixelclip_sdk.words.classes import check_list_name
from pixelclip_sdk.words.formats import shown
from pixelclip_sdk.words.vocabulary import Vocabulary

__all__ = [
    "INPUTS",
    "OUTPUTS",
    "Tensor",
    "check_vocabulary",
    "read_images",
    "read_limits",
    "read_words",
    "write_outputs",
]

Array = npt.NDArray[Any]

MAX_NAMES = 255
"""Labels have 8 bits, and 255 is unknown."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """The name, data type and shape of an input or output. −1 is a size that varies."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


INPUTS = (
    Tensor("image", "BYTES", (-1,), optional=True),
    Tensor("pixels", "UINT8", (-1, -1, -1, 3), optional=True),
    Tensor("words", "BYTES", (-1,)),
    Tensor("min_confidence", "FP32", (1,), optional=True),
    Tensor("threshold", "FP32", (1,), optional=True),
)
OUTPUTS = (
    Tensor("labels", "UINT8", (-1, -1, -1)),
    Tensor("names", "BYTES", (-1,)),
    Tensor("areas", "FP32", (-1, -1)),
    Tensor("confidence", "FP32", (-1, -1, -1)),
)


def read_images(tensors: Mapping[str, Array]) -> list[bytes] | npt.NDArray[np.uint8]:
    """Return the images of a request for `Segmenter.predict_batch`: files, or `(N, H, W, 3)` uint8 RGB.

    ``pixels`` may also be one image, `(H, W, 3)`.

    Raises:
        ImageError: There are none, or both kinds, or the pixels have another shape.
    """
    files, pixels = tensors.get("image"), tensors.get("pixels")
    if (files is None) == (pixels is None):
        came = "neither" if files is None else "both"
        raise ImageError(
            f"{came} of the inputs image (BYTES, files) and pixels (UINT8) came; expected one of them"
        )
    if pixels is None:
        assert files is not None
        images: list[bytes] = files.ravel().tolist()
        if not images:
            raise ImageError("the input image is empty; expected at least one file")
        return images
    if pixels.ndim == 3:
        pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[3] != 3 or 0 in pixels.shape:
        raise ImageError(
            f"the input pixels has the shape {list(pixels.shape)}; expected [N, H, W, 3] or [H, W, 3], RGB"
        )
    return pixels


def read_words(
    items: Sequence[bytes], lists: Collection[str], *, limited: bool
) -> str | dict[str, list[str]] | list[str]:
    """Return the words of a request: the name of a list, names, or name → synonyms.

    Args:
        items: The elements of the tensor ``words``.
        lists: Names of lists of classes.
        limited: Whether the request has `min_confidence` or `threshold`. Without them one class would get
            every pixel, so one item with commas is not taken for one class with synonyms.

    Raises:
        VocabularyError: The words cannot be used.
    """
    if not 1 <= len(items) <= MAX_NAMES:
        raise VocabularyError(f"the input words has {len(items)} items; expected 1 to {MAX_NAMES} classes")
    texts = [_text(item, index) for index, item in enumerate(items)]
    if len(texts) == 1:
        if name := find_name(texts[0].strip(), lists):
            return name
        check_list_name(texts[0], lists)
        if "," in texts[0] and not limited:
            raise VocabularyError(
                f"the input words has one item, {shown(texts[0])}: one class, which would get every pixel. "
                "Expected one item for each class; or send min_confidence, if these are its synonyms"
            )
    parts = [[part.strip() for part in text.split(",")] for text in texts]
    if all(len(words) == 1 for words in parts):
        return [words[0] for words in parts]
    classes: dict[str, list[str]] = {}
    for words in parts:
        if words[0] in classes:
            raise VocabularyError(f"the name {shown(words[0])} is repeated; expected each class once")
        classes[words[0]] = words
    return classes


def read_limits(tensors: Mapping[str, Array]) -> dict[str, float]:
    """Return ``min_confidence`` and ``threshold``, if they came, as `Segmenter.predict` takes them.

    Raises:
        PixelClipError: One has another number of values than one. `predict` checks their range.
    """
    limits = {}
    for name in ("min_confidence", "threshold"):
        if (value := tensors.get(name)) is not None:
            if value.size != 1:
                raise PixelClipError(f"the input {name} has {value.size} values; expected one")
            limits[name] = float(value.ravel()[0])
    return limits


def check_vocabulary(vocabulary: Vocabulary) -> None:
    """Raise VocabularyError if labels of 8 bits cannot name its classes."""
    if len(vocabulary.names) > MAX_NAMES:
        raise VocabularyError(
            f"the list has {len(vocabulary.names)} classes; expected at most {MAX_NAMES}, "
            "because labels have 8 bits here"
        )


def write_outputs(results: Sequence[Segmentation], wanted: Collection[str]) -> dict[str, Array]:
    """Return the wanted outputs of the results of one request, at least one, with at most 255 names.

    Raises:
        ImageError: The images have several sizes.
    """
    sizes = {result.orig_shape for result in results}
    if len(sizes) > 1:
        few = ", ".join(f"{height}×{width}" for height, width in sorted(sizes)[:3])
        raise ImageError(f"the images have the sizes {few}; expected one size. Send a request for each size")
    names = results[0].names
    outputs: dict[str, Array] = {}
    if "labels" in wanted:
        outputs["labels"] = np.stack([result.labels for result in results])
    if "names" in wanted:
        outputs["names"] = np.array([name.encode() for name in names], np.object_)
    if "areas" in wanted:
        rows = [result.areas() for result in results]
        outputs["areas"] = np.array([[row[name] for name in names] for row in rows], np.float32)
    if "confidence" in wanted:
        outputs["confidence"] = np.stack([result.confidence for result in results])
    return outputs


def _text(item: bytes | str, index: int) -> str:
    try:
        return item if isinstance(item, str) else item.decode()
    except UnicodeDecodeError as error:
        raise VocabularyError(f"item {index} of the input words is not UTF-8: {error.reason}") from error
