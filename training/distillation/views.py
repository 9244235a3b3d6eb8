"""Views: random crops of photos, each at the input size of the student and at that of the teacher."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.images import find_images
from training.data.photos import first_readable, names_digest

__all__ = ["Views", "ViewsOfPhotos", "join_views"]


@dataclass(frozen=True)
class Views:
    """The same crops of photos at two sizes."""

    student: Tensor  # uint8 [N, h, w, 3], RGB
    teacher: Tensor  # uint8 [N, H, W, 3], RGB
    names: tuple[str, ...]  # paths under the folder of photos
    skipped: tuple[str, ...] = ()  # errors of files that were skipped

    def to(self, device: torch.device) -> Views:
        """Copy to a device."""
        return replace(self, student=self.student.to(device), teacher=self.teacher.to(device))

    def pin_memory(self) -> Views:
        """Copy to pinned memory; called by torch's DataLoader."""
        return replace(self, student=self.student.pin_memory(), teacher=self.teacher.pin_memory())


def join_views(views: Sequence[Views]) -> Views:
    """Join views into a batch."""
    return Views(
        student=torch.cat([one.student for one in views]),
        teacher=torch.cat([one.teacher for one in views]),
        names=tuple(name for one in views for name in one.names),
        skipped=tuple(reason for one in views for reason in one.skipped),
    )


@dataclass(eq=False)
class ViewsOfPhotos(Dataset[Views]):
    """One view of each photo. Keys are (epoch, index); a view depends on them and the seed alone.

    A crop has the shape of the student's input, a side of `crop` to 1 of the largest that fits, and is
    mirrored at random. Raises ImageError if the folder has no photos.
    """

    images: Path
    _: KW_ONLY
    student_size: tuple[int, int]  # (H, W)
    teacher_size: tuple[int, int]  # (H, W); if it has another shape, the teacher's view is squashed
    crop: float
    seed: int

    def __post_init__(self) -> None:
        files = find_images(self.images, recursive=True)
        self.names = [file.relative_to(self.images).as_posix() for file in files]

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Return the SHA-256 of the list of photos, in hexadecimal."""
        return names_digest(self.names)

    def __getitem__(self, key: tuple[int, int]) -> Views:
        """Return a view of a photo, or of the next one if its file cannot be read."""
        epoch, index = key
        views, skipped = first_readable(functools.partial(self._read, epoch), index, len(self))
        return replace(views, skipped=skipped)

    def _read(self, epoch: int, index: int) -> Views:
        name = self.names[index]
        photo = Image.fromarray(load_image(self.images / name))
        rng = np.random.default_rng([self.seed, epoch, index])
        height, width = self.student_size
        scale = min(photo.height / height, photo.width / width) * rng.uniform(self.crop, 1)
        top, left = rng.uniform(0, photo.height - scale * height), rng.uniform(0, photo.width - scale * width)
        box = (left, top, left + scale * width, top + scale * height)
        mirrored = rng.random() < 0.5
        student = torch.from_numpy(_cut(photo, box, self.student_size, mirrored))
        teacher = torch.from_numpy(_cut(photo, box, self.teacher_size, mirrored))
        return Views(student[None], teacher[None], (name,))


def _cut(
    photo: Image.Image, box: tuple[float, float, float, float], size: tuple[int, int], mirrored: bool
) -> npt.NDArray[np.uint8]:
    """Resize a box (left, top, right, bottom) to `size` as the SDK resizes pictures: `(H, W, 3)`."""
    cut = photo.resize(size[::-1], Image.Resampling.BILINEAR, box=box, reducing_gap=1.5)
    pixels = np.asarray(cut)
    return (pixels[:, ::-1] if mirrored else pixels).copy()
