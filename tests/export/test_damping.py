"""Damping of words that fit too many photos, in a copy of the real pixelclip-lite."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from export.damping import add_damping, damping_matrix, main
from pixelclip_sdk import Bundle, PixelClipError, Segmenter
from pixelclip_sdk.models import find_bundle


@pytest.fixture
def bundle(tmp_path):
    # Links: nothing writes into a file of a bundle, files are replaced.
    return Bundle.open(
        shutil.copytree(find_bundle("pixelclip-lite").path, tmp_path / "lite", copy_function=os.link)
    )


def test_the_norm_is_the_standard_deviation_of_the_cosine_over_the_limit():
    rng = np.random.default_rng(0)
    photos = [rng.normal(1, 1, (3, 4, 6)).astype(np.float32) * size for size in (1, 5, 9)]
    word = rng.normal(size=6)
    word /= np.linalg.norm(word)
    cosines = [(p / np.linalg.norm(p, axis=2, keepdims=True)) @ word for p in photos]
    found = np.linalg.norm(damping_matrix(photos, 0.2) @ word)
    assert found == pytest.approx(np.std(cosines) / 0.2, rel=1e-5)


def test_photos_of_another_size_count_alike():
    one, two = (np.zeros((side, side, 2), np.float32) for side in (1, 8))
    one[..., 0], two[..., 1] = 1, 1
    matrix = damping_matrix([one, two], 1)
    assert np.linalg.norm(matrix[:, 0]) == pytest.approx(0.5)  # The cosine is 1 or 0 equally often.


def test_without_photos_there_is_nothing_to_measure():
    with pytest.raises(PixelClipError, match="no photos"):
        damping_matrix([], 1)


def test_replacing_leaves_one_file_and_a_whole_bundle(bundle):
    for number in (1.0, 2.0, 3.0):
        bundle = add_damping(bundle, np.full((1, 384), number, np.float32))
        bundle.verify()
        assert bundle.damping().tolist() == [[number] * 384]
        assert [p.name for p in bundle.path.glob("damping*")] == [bundle.damping_file]


def test_the_command_measures_photos(bundle, tmp_path, photo):
    (tmp_path / "photos").mkdir()
    Image.fromarray(photo).save(tmp_path / "photos" / "a.png")
    Image.fromarray(photo[:, ::-1]).save(tmp_path / "photos" / "b.png")
    assert main(["--bundle", str(bundle.path), "--photos", str(tmp_path / "photos")]) == 0
    changed = Bundle.open(bundle.path)
    assert changed.damping().shape == (128, 384)
    with Segmenter.from_pretrained(changed.path, classes="cat, table") as segmenter:
        assert segmenter.predict(photo).logits.shape[0] == 2
