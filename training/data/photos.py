"""Photos with masks and without labels, in an order that every run repeats.

A sample depends on (seed, epoch, index) and a batch on (seed, step) alone: not on the number of workers or
processes, nor on interruptions.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pixelclip_sdk.errors import ImageError
from pixelclip_sdk.image import load_image
from pixelclip_sdk.support.files import files_below
from pixelclip_sdk.support.images import image_suffixes
from training.data.augment import Crop, random_crop, random_cut, strengthen, take, vary
from training.masks.format import read_masks

__all__ = ["Batch", "MaskedPhotos", "Order", "Sample", "collate", "find_pairs", "reading"]

_log = logging.getLogger(__name__)

_SHOWN = 5  # names in a message
_TRIES = 16  # consecutive unreadable files before an error


@dataclass(frozen=True)
class Sample:
    """One augmented photo.

    Attributes:
        image: uint8 `[3, S, S]`, RGB, for the teacher.
        student_image: The same crop with stronger augmentation.
        masks: bool `[M, R, R]`, the masks in this crop; none is empty.
        name: The photo's path under its folder.
        skipped: Errors of files that were skipped before it.
    """

    image: Tensor
    student_image: Tensor
    masks: Tensor
    name: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Several samples; see `Sample`.

    Attributes:
        images: uint8 `[N, 3, S, S]`.
        student_images: uint8 `[N, 3, S, S]`.
        masks: bool `[M, R, R]`, photo after photo.
        counts: Number of masks of each photo, `[N]`.
        names: `[N]`.
        skipped: Errors of files that were skipped.
    """

    images: Tensor
    student_images: Tensor
    masks: Tensor
    counts: tuple[int, ...]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """Copy to a device; copies from pinned memory to a GPU are asynchronous."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pin_memory(self) -> Batch:
        """Copy to pinned memory; called by torch's DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        names = ("images", "student_images", "masks")
        return replace(self, **{name: function(getattr(self, name)) for name in names})


def collate(samples: Sequence[Sample]) -> Batch:
    """Combine samples into a batch."""
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        student_images=torch.stack([sample.student_image for sample in samples]),
        masks=torch.cat([sample.masks for sample in samples]),
        counts=tuple(len(sample.masks) for sample in samples),
        names=tuple(sample.name for sample in samples),
        skipped=tuple(reason for sample in samples for reason in sample.skipped),
    )


@contextlib.contextmanager
def reading(
    photos: MaskedPhotos, order: Order, *, workers: int, pin_memory: bool
) -> Iterator[Iterator[Batch]]:
    """Yield an iterator over batches, loaded ahead by worker processes that end with the block.

    Args:
        photos: The samples.
        order: The samples of each batch.
        workers: Number of worker processes; 0 loads in this process.
        pin_memory: Whether to pin memory, for a GPU.

    Yields:
        The batches. The iterator raises ImageError if photos cannot be used; see `MaskedPhotos`.
    """
    loader = DataLoader(
        photos,
        batch_sampler=order,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        pin_memory=pin_memory,
    )
    batches = iter(loader)
    try:
        yield _raise_plainly(batches)
    finally:
        if workers:  # Otherwise Python would wait at exit for workers that ignore its signal.
            batches._shutdown_workers()


def _raise_plainly(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the batches; remove a worker's traceback, which torch puts before the message of its error."""
    try:
        yield from batches
    except ImageError as error:
        raise ImageError(str(error).strip().rpartition("ImageError: ")[2]) from None


def _ignore_signals(_: int) -> None:
    """Let workers ignore signals, so that the main process can finish and save its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def find_pairs(images: Path, masks: Path) -> list[str]:
    """Return the photos with a file of masks, as sorted paths under `images`; log the others.

    Raises:
        ImageError: A folder does not exist, or no photo has masks.
    """
    for folder, content in ((images, "photos"), (masks, "masks of training/make_masks.py")):
        if not folder.is_dir():
            raise ImageError(f"{folder} is no folder; expected a folder of {content}")
    photos = {path.relative_to(images).as_posix() for path in files_below(images, image_suffixes())}
    masked = {path.relative_to(masks).with_suffix("").as_posix() for path in files_below(masks, {".npz"})}
    pairs = sorted(photo for photo in photos if _stem(photo) in masked)
    _log_unpaired("photos without masks", sorted(photos - set(pairs)))
    _log_unpaired("masks without a photo", sorted(masked - {_stem(photo) for photo in photos}))
    if not pairs:
        raise ImageError(
            f"no photo under {images} ({len(photos)} photos) has masks under {masks} ({len(masked)} files): "
            "expected MASKS/REL/PATH.npz for IMAGES/REL/PATH.jpg"
        )
    return pairs


def _stem(photo: str) -> str:
    return photo.rpartition(".")[0]


def _log_unpaired(kind: str, names: list[str]) -> None:
    if names:
        more = ", …" if len(names) > _SHOWN else ""
        _log.warning("ignored %d %s: %s%s", len(names), kind, ", ".join(names[:_SHOWN]), more)


class MaskedPhotos(Dataset[Sample]):
    """Photos and their masks, augmented as in the paper. Keys are (epoch, index).

    Resizing, crop and resizing to the encoder's input are one resampling.

    Args:
        images: Folder of the photos.
        masks: Folder of their masks, with the same tree.
        short_side: Short side of a photo after resizing, in pixels.
        crop: Side of the square crop of the resized photo; at most its short side.
        imgsz: Side S of the images.
        mask_size: Side R of the masks.
        long_side: Upper bound of the long side after resizing; None for no bound.
        seed: Seed of the augmentation.
        vary: Colour augmentation, for teacher and student alike.
        strong: Stronger augmentation of the student's image.

    Raises:
        ImageError: See `find_pairs`.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        *,
        short_side: int,
        crop: int,
        imgsz: int,
        mask_size: int,
        long_side: int | None = None,
        seed: int = 0,
        vary: bool = True,
        strong: bool = True,
    ) -> None:
        self.images, self.masks = images, masks
        self.names = find_pairs(images, masks)
        self.short_side, self.long_side, self.crop = short_side, long_side, crop
        self.imgsz, self.mask_size = imgsz, mask_size
        self.seed, self.vary, self.strong = seed, vary, strong

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Return the SHA-256 of the list of photos, in hexadecimal."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return a sample, or the next one if its files cannot be read.

        Raises:
            ImageError: Too many consecutive files cannot be read.
        """
        epoch, index = key
        skipped: list[str] = []
        for attempt in range(min(_TRIES, len(self))):
            candidate = (index + attempt) % len(self)
            try:
                sample = self._read(epoch, candidate)
            except ImageError as error:
                skipped.append(str(error))
            else:
                return replace(sample, skipped=tuple(skipped))
        raise ImageError(f"{len(skipped)} files in a row cannot be used; the last: {skipped[-1]}")

    def _read(self, epoch: int, index: int) -> Sample:
        name = self.names[index]
        image = torch.from_numpy(load_image(self.images / name).copy()).permute(2, 0, 1)
        file = self.masks / f"{_stem(name)}.npz"
        words = np.random.SeedSequence([self.seed, epoch, index]).generate_state(2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(words[0]) << 32 | int(words[1]))
            short, crop_px = self._resized(image.shape[1], image.shape[2])
            crop = random_crop(image.shape[1], image.shape[2], crop_px / short)
            points = _points(crop, image.shape, self.mask_size)
            masks = torch.from_numpy(read_masks(file, at=points, photo=(image.shape[1], image.shape[2])))
            image = take(image, crop, self.imgsz)
            if self.vary:
                image = vary(image)
            student = image
            if self.strong:
                # The standard deviation of the blur is in pixels of the crop.
                student, cut = strengthen(image, self.imgsz / crop_px), random_cut()
                student = cut.of(student, 0)
                masks = cut.of(masks, False)
        # Masks of one pixel are noise, and empty masks have no mean.
        return Sample(image, student, masks[masks.sum((1, 2)) > 1], name)

    def _resized(self, height: int, width: int) -> tuple[float, float]:
        """Return the short side of the resized photo and the side of the crop, in its pixels."""
        short = float(self.short_side)
        if self.long_side is not None:
            short = min(short, self.long_side * min(height, width) / max(height, width))
        return short, min(float(self.crop), short)


def _points(crop: Crop, shape: torch.Size, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the mask's pixels, as fractions of the photo's height and width."""
    steps = (np.arange(size) + 0.5) / size
    columns = (crop.left + steps * crop.side) / shape[2]
    return (crop.top + steps * crop.side) / shape[1], columns[::-1] if crop.flipped else columns


class Order(Sampler[list[tuple[int, int]]]):
    """Keys of this process's samples, batch by batch. Shuffled epochs follow one another without gaps.

    The samples of a step do not depend on the number of processes and parts.

    Args:
        length: Number of photos.
        batch: Photos per step, over all processes; a multiple of `parts` times `world`.
        parts: Batches per step and process (gradient accumulation).
        first: First step.
        last: Step to stop before.
        seed: Seed of the shuffling.
        rank: Index of this process.
        world: Number of processes.
    """

    def __init__(
        self,
        length: int,
        *,
        batch: int,
        parts: int,
        first: int,
        last: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length, self.batch, self.parts, self.seed = length, batch, parts, seed
        self.first, self.last, self.rank, self.world = first, last, rank, world
        self._epoch, self._shuffled = -1, torch.empty(0)

    def __len__(self) -> int:
        return (self.last - self.first) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        size = self.batch // (self.parts * self.world)
        for step in range(self.first, self.last):
            for part in range(self.parts):
                start = step * self.batch + (part * self.world + self.rank) * size
                yield [self._key(position) for position in range(start, start + size)]

    def _key(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self.length)
        if epoch != self._epoch:
            words = np.random.SeedSequence([self.seed, epoch]).generate_state(1)
            generator = torch.Generator().manual_seed(int(words[0]))
            self._epoch, self._shuffled = epoch, torch.randperm(self.length, generator=generator)
        return epoch, int(self._shuffled[offset])
