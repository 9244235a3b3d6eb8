"""COCO's run-length encoding of masks, as `pycocotools` writes it.

The counts are lengths of runs down the columns, from left to right, beginning with a run of zeros. Their
compressed form is a text: each count, from the fourth on its difference to the count two before, in groups of
five bits (https://github.com/cocodataset/cocoapi, common/maskApi.c, rleEncode and rleToString).
"""

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.image import strip_rows

__all__ = ["compressed", "counts"]

# Groups of five bits that hold any number of pixels of an image: 2^34.
_GROUPS = 7


def counts(mask: npt.NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """Returns the counts of a mask that is a part of an image.

    Args:
        mask: `(h, w)` bool: the part.
        corner: `(y, x)` of its top left pixel in the image.
        size: `(H, W)` of the image.

    Examples:
        >>> import numpy as np
        >>> counts(np.ones((1, 2), bool), (1, 0), (2, 2))
        [1, 1, 1, 1]
    """
    parts = [
        _edges(mask[:, columns], (corner[0], corner[1] + columns.start), size[0])
        for columns in strip_rows(mask.shape[1], len(mask))
    ]
    edges = np.concatenate(parts)
    # A run that ends at the bottom of the image goes on at the top of the next column.
    again = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * again + 1, 2 * again + 2]))
    total = size[0] * size[1]
    lengths: list[int] = np.diff(edges, prepend=0, append=total).tolist()
    if lengths[-1] == 0:
        lengths.pop()
    return lengths


def _edges(mask: npt.NDArray[np.bool_], corner: tuple[int, int], image_height: int) -> npt.NDArray[np.intp]:
    """Where runs begin and end, as numbers of pixels down the columns of the image."""
    height = len(mask)
    padded = np.zeros((mask.shape[1], height + 2), bool)  # Columns as rows, with a zero before and after.
    padded[:, 1:-1] = mask.T
    column, row = np.divmod(np.flatnonzero(padded.reshape(-1)[1:] != padded.reshape(-1)[:-1]), height + 2)
    edges: npt.NDArray[np.intp] = (corner[1] + column) * image_height + corner[0] + row
    return edges


def compressed(lengths: list[int]) -> str:
    """Returns the compressed form of counts.

    Examples:
        >>> compressed([1, 1, 1, 1])
        '1110'
    """
    rest = np.array(lengths, np.int64)
    rest[3:] -= rest[1:-2].copy()
    characters = np.zeros((len(rest), _GROUPS), np.uint8)
    more = np.ones(len(rest), bool)
    for group in range(_GROUPS):
        bits = (rest & 31).astype(np.uint8)
        rest = rest >> 5
        going = np.where(bits & 16, rest != -1, rest != 0)
        characters[:, group] = np.where(more, bits + 48 + 32 * going.astype(np.uint8), 0)
        more &= going
    return characters[characters > 0].tobytes().decode("ascii")
