"""Connected components, compared with a flood fill."""

import numpy as np

from pixelclip_sdk.results.components import components


def flooded(labels: np.ndarray) -> np.ndarray:
    """The component of each pixel, numbered by the first pixel in raster order."""
    found = np.full(labels.shape, -1)
    count = 0
    for start in np.ndindex(labels.shape):
        if found[start] >= 0:
            continue
        stack = [start]
        while stack:
            y, x = stack.pop()
            if not (0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]):
                continue
            if found[y, x] < 0 and labels[y, x] == labels[start]:
                found[y, x] = count
                stack += [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        count += 1
    return found


def test_components_are_those_of_a_flood_fill(labels):
    runs = components(labels)
    np.testing.assert_array_equal(
        np.repeat(runs.component, runs.stop - runs.start).reshape(labels.shape), flooded(labels)
    )


def test_runs_cover_every_pixel_once_and_have_its_label(labels):
    runs = components(labels)
    seen = np.zeros(labels.shape, int)
    for row, start, stop, label in zip(runs.row, runs.start, runs.stop, runs.label, strict=True):
        seen[row, start:stop] += 1
        assert (labels[row, start:stop] == label).all()
    assert (seen == 1).all()


def test_a_large_map_of_noise_is_done():
    labels = np.random.default_rng(0).integers(0, 2, (600, 800)).astype(np.uint8)
    runs = components(labels)
    # 4-connectivity: a component and its neighbour to the right or below never have the same label.
    whole = np.repeat(runs.component, runs.stop - runs.start).reshape(labels.shape)
    for one, other, a, b in (
        (whole[1:], whole[:-1], labels[1:], labels[:-1]),
        (whole[:, 1:], whole[:, :-1], labels[:, 1:], labels[:, :-1]),
    ):
        np.testing.assert_array_equal(one == other, a == b)
