"""The whole path prefers no side: a mirrored photo has the mirrored labels."""

from pathlib import Path

import numpy as np
import pytest

from pixelclip_sdk.image import load_image

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
WORDS = ["cat", "cup", "table", "spoon", "wall", "person", "floor", "saucer"]


@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_a_mirrored_photo_has_the_mirrored_labels(lite, name):
    """A grid that is half a cell off gives other labels to 22 % of the second photo, and this one to 7 %."""
    photo = load_image(PHOTOS / f"{name}.jpg")
    lite.set_classes(WORDS)
    try:
        labels = lite.predict(photo, refine="off").labels
        mirrored = lite.predict(np.ascontiguousarray(photo[:, ::-1]), refine="off").labels[:, ::-1]
    finally:
        lite.set_classes(["cat", "sofa", "grass"])
    assert len(np.unique(labels)) > 1
    assert (labels != mirrored).mean() < 0.1
