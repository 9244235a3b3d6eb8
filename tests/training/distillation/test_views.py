import numpy as np
import pytest
import torch
from PIL import Image
from toy_photos import write_photos

from pixelclip_sdk import ImageError
from training.distillation.views import ViewsOfPhotos, join_views

SIZES = {"student_size": (32, 48), "teacher_size": (64, 96)}


@pytest.fixture
def photos(tmp_path):
    images, _ = write_photos(tmp_path, 4)
    return images


def test_student_and_teacher_see_the_same_crop(photos):
    views = ViewsOfPhotos(photos, **SIZES, crop=0.5, seed=0)
    for index in range(4):
        view = views[0, index]
        assert view.student.shape == (1, 32, 48, 3)
        assert view.teacher.shape == (1, 64, 96, 3)
        assert view.student.dtype == view.teacher.dtype == torch.uint8
        halved = view.teacher.float().unflatten(1, (32, 2)).unflatten(3, (48, 2)).mean((2, 4))
        assert (halved - view.student.float()).abs().mean() < 6  # the resizing filters differ


def test_a_view_depends_on_seed_epoch_and_index_alone(photos):
    one, again, other = (ViewsOfPhotos(photos, **SIZES, crop=0.5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one[2, 3].student, again[2, 3].student)
    assert not torch.equal(one[2, 3].student, one[3, 3].student)
    assert not torch.equal(one[2, 3].student, other[2, 3].student)


def test_a_whole_photo_is_the_largest_crop(tmp_path):
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :48] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    views = ViewsOfPhotos(tmp_path, **SIZES, crop=1.0, seed=0)
    seen = {tuple(views[epoch, 0].teacher[0, 5, [0, -1], 0].tolist()) for epoch in range(20)}
    assert seen == {(200, 0), (0, 200)}  # mirrored or not
    assert torch.equal(
        views[0, 0].teacher[0].flatten().sort().values, torch.tensor(pixels).flatten().sort().values
    )


def test_files_that_are_no_photos_are_skipped_and_named(photos):
    (photos / "a" / "00.png").write_bytes(b"no photo")
    views = ViewsOfPhotos(photos, **SIZES, crop=0.5, seed=0)
    batch = join_views([views[0, 0], views[0, 1]])
    assert batch.student.shape == (2, 32, 48, 3)
    assert batch.names == ("a/01.png", "a/01.png")
    assert "00.png" in batch.skipped[0]


def test_a_folder_without_photos_is_refused(tmp_path):
    with pytest.raises(ImageError, match="no image files"):
        ViewsOfPhotos(tmp_path, **SIZES, crop=0.5, seed=0)
