"""Masks as annotation tools hold them.

- CVAT: run lengths along the rows of the box, beginning with a run of zeros, then the box with its last pixel
  (https://docs.cvat.ai/docs/api_sdk/sdk/reference/models/labeled-shape-request/, ``cvat_sdk.masks``).
- Label Studio: run lengths of RGBA bytes in a stream of bits
  (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack).
- FiftyOne: a label map; it does not draw label 0.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.results.regions import Region

if TYPE_CHECKING:
    from pixelclip_sdk.segmentation import Segmentation

__all__ = ["cvat_mask", "cvat_polygon", "fiftyone_mask", "label_studio_rle"]

# Bits of the lengths in Label Studio's stream, for short to long runs.
_LENGTH_BITS = (3, 4, 8, 16)
_LONGEST = 1 << _LENGTH_BITS[-1]


def cvat_mask(region: Region) -> list[int]:
    """Returns the ``points`` of a CVAT shape of type ``mask``.

    Args:
        region: A region of a result.

    Returns:
        The lengths of runs of zeros and ones in turns, row by row inside the box, then the box
        `x0, y0, x1, y1`, whose last pixel is `(x1, y1)`.
    """
    x0, y0, x1, y1 = region.box
    inside = region.mask()[y0:y1, x0:x1].reshape(-1)
    changes = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    lengths: list[int] = np.diff(changes, prepend=0, append=inside.size).tolist()
    return [*([0] if inside[0] else []), *lengths, x0, y0, x1 - 1, y1 - 1]


def cvat_polygon(region: Region) -> list[float]:
    """Returns the ``points`` of a CVAT shape of type ``polygon``: `x, y, x, y, …`, at least three points.

    It is `Region.outline`: one polygon, also around holes.
    """
    points = region.outline.astype(float)
    return [float(value) for value in np.pad(points, ((0, max(3 - len(points), 0)), (0, 0)), "edge").ravel()]


def fiftyone_mask(result: "Segmentation") -> tuple[npt.NDArray[np.uint8 | np.uint16], Mapping[int, str]]:
    """Returns a label map for ``fiftyone.Segmentation(mask=…)``, and the names for ``mask_targets``.

    FiftyOne does not draw label 0. So all labels are one larger, and unknown pixels have 0.

    Returns:
        `(H, W)`, of the dtype of the labels, and label → name.

    Examples:
        >>> import numpy as np
        >>> from pixelclip_sdk import Segmentation
        >>> result = Segmentation(
        ...     labels=np.array([[0, 1, 255]], np.uint8),
        ...     logits=np.zeros((2, 1, 1), np.float32),
        ...     names=("cat", "sofa"),
        ...     image=np.zeros((1, 3, 3), np.uint8),
        ...     speed={},
        ... )
        >>> mask, targets = fiftyone_mask(result)
        >>> mask.tolist(), targets
        ([[1, 2, 0]], {1: 'cat', 2: 'sofa'})
    """
    shifted = result.labels + result.labels.dtype.type(1)  # Unknown is the largest number: it becomes 0.
    return shifted, {label + 1: name for label, name in enumerate(result.names)}


def label_studio_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Returns the ``rle`` of a Label Studio result of type ``brushlabels``: bytes as numbers.

    Args:
        mask: `(H, W)` bool.

    Returns:
        A stream of bits in bytes: the number of values (32 bits), their bits less one (5), four sizes of
        lengths less one (4 each), then the runs: 1, which of the four sizes (2), the length less one, the
        value (8). The values are the four channels of each pixel, 255 inside the mask.
    """
    flat = mask.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths = 4 * np.diff(changes, prepend=0, append=flat.size)  # All four channels of a pixel are equal.
    bits = [f"{4 * flat.size:032b}{7:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    value = bool(flat[0])
    for length in lengths.tolist():
        byte = "11111111" if value else "00000000"
        while length:
            run = min(length, _LONGEST)
            which = next(i for i, size in enumerate(_LENGTH_BITS) if run <= 1 << size)
            bits.append(f"1{which:02b}{run - 1:0{_LENGTH_BITS[which]}b}{byte}")
            length -= run
        value = not value
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))
