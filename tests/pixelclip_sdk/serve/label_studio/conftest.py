"""A decoder of Label Studio's masks."""

from collections.abc import Callable

import numpy as np
import pytest


def _masks(stream: list[int], size: tuple[int, int]) -> np.ndarray:
    """Decodes a result. All runs that the SDK writes are runs of equal values."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    sizes = [int(bits[37 + 4 * i : 41 + 4 * i], 2) + 1 for i in range(4)]
    lengths, values, total, at = [], [], int(bits[:32], 2), 53
    while sum(lengths) < total:
        assert bits[at] == "1"
        bit_count = sizes[int(bits[at + 1 : at + 3], 2)]
        lengths.append(int(bits[at + 3 : at + 3 + bit_count], 2) + 1)
        values.append(int(bits[at + 3 + bit_count : at + 11 + bit_count], 2))
        at += 11 + bit_count
    return np.repeat(values, lengths).reshape(*size, 4)[..., 3] > 0


@pytest.fixture(scope="session")
def masks() -> Callable[[list[int], tuple[int, int]], np.ndarray]:
    """Turns `rle` and the size `(H, W)` into a mask."""
    return _masks
