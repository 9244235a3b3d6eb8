"""Mosaics have the photos and the labels of their parts."""

import dataclasses

import numpy as np
import pytest

from benchmarks.tiles import mosaics


@dataclasses.dataclass
class Numbered:
    """Photo i is all i, with the label i, in several sizes."""

    count: int

    def __len__(self):
        return self.count

    def pair(self, i):
        size = (30 + i, 40)
        return np.full((*size, 3), i, np.uint8), np.full(size, i, np.uint8)


@pytest.mark.parametrize(("side", "pictures"), [(2, 2), (3, 1)])
def test_a_mosaic_has_the_labels_of_its_parts(side, pictures):
    made = list(mosaics(Numbered(11), side))
    assert len(made) == pictures
    seen = []
    for photo, truth in made:
        assert photo.shape == (300 * side, 400 * side, 3)
        assert (photo == truth[:, :, None]).all()
        for row in range(side):
            for column in range(side):
                part = truth[300 * row : 300 * (row + 1), 400 * column : 400 * (column + 1)]
                assert (part == part[0, 0]).all()
                seen.append(int(part[0, 0]))
    assert len(set(seen)) == len(seen) == pictures * side * side
