"""Contours of masks, as polygons through the centres of the pixels at the border.

The rule: a pixel belongs to the mask if it lies inside a polygon (even-odd) or on its line. So fill a polygon
and draw its line, as `cv2.fillPoly` and Pillow's `ImageDraw.polygon` do.
"""

import numpy as np
import numpy.typing as npt

from pixelclip_sdk.image import strip_rows

__all__ = ["contours", "one_polygon", "straightened"]

Points = npt.NDArray[np.int32]

# Along the sides of a pixel, the mask on the right: top, right, bottom, left, as steps (x, y).
_STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


def contours(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Traces the borders of a 4-connected mask: first the outer one, then those of the holes.

    Args:
        mask: `(h, w)` bool with at least one pixel.

    Returns:
        Closed chains of pixels `(N, 2)` int32, `(x, y)`, each one step from the one before, also a diagonal
        one. The first pixel is not repeated at the end. The outer border runs clockwise, holes run the
        other way.

    Examples:
        >>> import numpy as np
        >>> contours(np.array([[1, 1], [1, 0]], bool))[0].tolist()
        [[0, 0], [1, 0], [0, 1]]
    """
    # Pixels are numbered as in a mask with a pixel more on each side.
    width = mask.shape[1] + 2
    steps = _STEPS @ (1, width)
    # A side is 4 times the pixel plus the number of the step.
    sides = np.concatenate([_sides(mask, rows) for rows in strip_rows(*mask.shape)])
    sides.sort()
    pixel, turn = np.divmod(sides, 4)
    ahead = pixel + steps[turn]
    beside = ahead + steps[turn - 1]
    # At its end, a side is followed by the next side of its pixel, by the same side of the pixel ahead, or by
    # the side before of the pixel beside that one.
    is_ahead, is_beside = _inside(mask, ahead), _inside(mask, beside)
    following = 4 * np.where(is_ahead, np.where(is_beside, beside, ahead), pixel)
    following += (turn + np.where(is_ahead, np.where(is_beside, -1, 0), 1)) % 4
    successor = np.searchsorted(sides, following).tolist()
    seen = [False] * len(sides)
    found = []
    for start in range(len(sides)):  # The first side is of the topmost pixel: of the outer border.
        if seen[start]:
            continue
        chain, side = [], start
        while not seen[side]:
            seen[side] = True
            chain.append(side)
            side = successor[side]
        y, x = np.divmod(pixel[chain], width)
        found.append(_distinct(np.stack([x - 1, y - 1], axis=1).astype(np.int32)))
    return found


def _sides(mask: npt.NDArray[np.bool_], rows: slice) -> npt.NDArray[np.intp]:
    """The sides of pixels in some rows beside which is no pixel of the mask."""
    strip, top = mask[rows], rows.start
    height, width = strip.shape
    above, below = int(top > 0), int(rows.stop < len(mask))
    around = np.pad(mask[top - above : rows.stop + below], ((1 - above, 1 - below), (1, 1)))
    found = []
    for turn, (x, y) in enumerate(np.roll(_STEPS, 1, axis=0).tolist()):
        row, column = np.nonzero(strip & ~around[1 + y : 1 + y + height, 1 + x : 1 + x + width])
        found.append(4 * ((top + row + 1) * (width + 2) + column + 1) + turn)
    return np.concatenate(found)


def _inside(mask: npt.NDArray[np.bool_], pixels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Whether pixels, which may lie one beside the mask, belong to it."""
    row, column = np.divmod(pixels, mask.shape[1] + 2)
    row, column = row - 1, column - 1
    there = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    result: npt.NDArray[np.bool_] = (
        there & mask[row.clip(0, mask.shape[0] - 1), column.clip(0, mask.shape[1] - 1)]
    )
    return result


def one_polygon(chains: list[Points], mask: npt.NDArray[np.bool_]) -> Points:
    """Joins the chains of `contours` to one, for formats whose polygons have no holes.

    A line inside the mask leads from the leftmost pixel of each hole to the border on its left, and back.
    """
    outer = chains[0]
    for hole in sorted(chains[1:], key=lambda chain: int(chain[:, 0].min())):
        leftmost = int(hole[:, 0].argmin())
        x, y = hole[leftmost].tolist()
        gaps = np.flatnonzero(~mask[y, :x])
        border = (int(gaps[-1]) + 1 if len(gaps) else 0, y)  # It belongs to a chain that is already joined.
        at = int(np.flatnonzero((outer == border).all(axis=1))[0])
        around = np.concatenate([hole[leftmost:], hole[: leftmost + 1]])
        outer = np.concatenate([outer[: at + 1], around, outer[at:]])
    return _distinct(outer)


def straightened(chain: Points) -> Points:
    """Leaves out the points of a chain on straight lines between the points before and after."""
    if len(chain) < 3:
        return chain
    direction = np.sign(np.roll(chain, -1, axis=0) - chain)
    # Lines between neighbouring points of `one_polygon` may be long, but they are horizontal.
    turns: npt.NDArray[np.bool_] = (direction != np.roll(direction, 1, axis=0)).any(axis=1)
    return chain[turns]


def _distinct(chain: Points) -> Points:
    """Leaves out points that equal the next one."""
    keep: npt.NDArray[np.bool_] = (chain != np.roll(chain, -1, axis=0)).any(axis=1)
    keep[0] |= not keep.any()
    return chain[keep]
