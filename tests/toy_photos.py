"""Photos of coloured patches with the patches as masks, for tests of the training."""

from pathlib import Path

import numpy as np
from PIL import Image

from training.masks.format import write_masks

SIZE = (96, 120)


def write_photos(folder: Path, count: int, seed: int = 0) -> tuple[Path, Path]:
    """Writes photos into `images/a/NN.png` and their masks, partitions and overlapping ones by turns.

    Returns:
        The folders of the photos and of the masks.
    """
    rng = np.random.default_rng(seed)
    for index in range(count):
        rows, columns = np.sort(rng.integers(20, 76, 2)), np.sort(rng.integers(20, 100, 2))
        y, x = np.indices(SIZE)
        labels = 3 * np.searchsorted(rows, y) + np.searchsorted(columns, x) + 1
        colours = rng.integers(0, 256, (10, 3))
        picture = np.clip(colours[labels] + rng.normal(0, 8, (*SIZE, 3)), 0, 255).astype(np.uint8)
        labels[labels == 5] = 0  # a hole that no mask covers
        path = folder / "images" / "a" / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
        masks = labels[None] == np.arange(1, 10)[:, None, None]
        write_masks(folder / "masks" / "a" / f"{index:02d}.npz", masks if index % 2 else labels)
    return folder / "images", folder / "masks"
