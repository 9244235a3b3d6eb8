"""Small real photos with different content."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk.image import load_image


@pytest.fixture
def archive(tmp_path, photo) -> Path:
    """A folder of seven crops of a photo, of two sizes, in two folders, and of a file that is no picture."""
    return make_archive(tmp_path, photo)


@pytest.fixture(scope="session")
def same(tmp_path_factory) -> Path:
    """The same, for tests that do not change it."""
    photo = load_image(Path(__file__).parents[3] / "examples" / "photos" / "chelsea.jpg")
    return make_archive(tmp_path_factory.mktemp("same"), photo)


def make_archive(place: Path, photo: np.ndarray) -> Path:
    folder = place / "photos"
    (folder / "more").mkdir(parents=True)
    for i in range(7):
        crop = photo[10 * i : 10 * i + 120 + 40 * (i % 2), 15 * i : 15 * i + 160]
        Image.fromarray(np.ascontiguousarray(crop)).save(folder / ("more" if i > 4 else ".") / f"{i}.png")
    (folder / "bad.jpg").write_bytes(b"no picture")
    return folder
