"""Photos with masks but without labels, the same in every run.

What a sample looks like depends on (seed, epoch, index) and what a batch holds on (seed, step) alone: not on
the number of workers or processes, nor on where a run was interrupted.
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
_TRIES = 16  # files that may be unreadable one after the other


@dataclass(frozen=True)
class Sample:
    """One photo, augmented.

    Attributes:
        image: uint8 `[3, S, S]`, RGB, what the teacher sees.
        student_image: The same with stronger augmentation.
        masks: bool `[M, R, R]`, the masks in this crop, none empty.
        name: The photo's path under its folder.
        skipped: Why files before it could not be used.
    """

    image: Tensor
    student_image: Tensor
    masks: Tensor
    name: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Samples together; see `Sample`.

    Attributes:
        images: uint8 `[N, 3, S, S]`.
        student_images: uint8 `[N, 3, S, S]`.
        masks: bool `[M, R, R]`, one photo's after the other's.
        counts: How many masks each photo has, `[N]`.
        names: `[N]`.
        skipped: Why files could not be used.
    """

    images: Tensor
    student_images: Tensor
    masks: Tensor
    counts: tuple[int, ...]
    names: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same on a device; from pinned memory to a GPU the copies run beside what follows."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pin_memory(self) -> Batch:
        """The same in memory that a GPU reads by itself; torch's DataLoader asks for it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return replace(
            self,
            images=change(self.images),
            student_images=change(self.student_images),
            masks=change(self.masks),
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples → batch."""
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
    """Batches, read ahead by other processes, which end with the block.

    Args:
        photos: The samples.
        order: Which of them make a batch.
        workers: Processes; 0 to read in this one.
        pin_memory: Where a GPU reads by itself.

    Yields:
        The batches. Getting one raises ImageError where photos cannot be used; see `MaskedPhotos`.
    """
    loader = DataLoader(
        _Outcomes(photos),
        batch_sampler=order,
        collate_fn=_collate_outcomes,
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        pin_memory=pin_memory,
    )
    outcomes = iter(loader)
    try:
        yield map(_raised, outcomes)
    finally:
        if workers:  # Else Python would end them at its own end, by the signal that they ignore, and wait.
            outcomes._shutdown_workers()


class _Outcomes(Dataset["Sample | ImageError"]):
    """Samples, and errors as values: one that a process raises comes with all its traceback as message."""

    def __init__(self, photos: MaskedPhotos) -> None:
        self.photos = photos

    def __getitem__(self, key: tuple[int, int]) -> Sample | ImageError:
        try:
            return self.photos[key]
        except ImageError as error:
            return error


def _collate_outcomes(outcomes: Sequence[Sample | ImageError]) -> Batch | ImageError:
    samples = [outcome for outcome in outcomes if isinstance(outcome, Sample)]
    errors = [outcome for outcome in outcomes if isinstance(outcome, ImageError)]
    return errors[0] if errors else collate(samples)


def _raised(outcome: Batch | ImageError) -> Batch:
    if isinstance(outcome, ImageError):
        raise outcome
    return outcome


def _ignore_signals(_: int) -> None:
    """For processes that read photos: a signal to all must not cost the step that is to be saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def find_pairs(images: Path, masks: Path) -> list[str]:
    """The photos that have a file of masks: paths under `images`, sorted; the others are counted in the log.

    Raises:
        ImageError: A folder does not exist, or nothing in them belongs together.
    """
    for folder, what in ((images, "photos"), (masks, "masks, which training/make_masks.py writes")):
        if not folder.is_dir():
            raise ImageError(f"{folder} is no folder; expected one with {what}")
    photos = {path.relative_to(images).as_posix() for path in files_below(images, image_suffixes())}
    masked = {path.relative_to(masks).with_suffix("").as_posix() for path in files_below(masks, {".npz"})}
    pairs = sorted(photo for photo in photos if _stem(photo) in masked)
    _tell("photos without masks", sorted(photos - set(pairs)))
    _tell("masks without a photo", sorted(masked - {_stem(photo) for photo in photos}))
    if not pairs:
        raise ImageError(
            f"no photo under {images} ({len(photos)} photos) has masks under {masks} ({len(masked)} files): "
            "expected MASKS/REL/PATH.npz for IMAGES/REL/PATH.jpg"
        )
    return pairs


def _stem(photo: str) -> str:
    return photo.rpartition(".")[0]


def _tell(what: str, names: list[str]) -> None:
    if names:
        more = ", …" if len(names) > _SHOWN else ""
        _log.warning("left out %d %s: %s%s", len(names), what, ", ".join(names[:_SHOWN]), more)


class MaskedPhotos(Dataset[Sample]):
    """Photos and their masks, augmented as in the paper. Its keys are (epoch, index).

    Args:
        images: The photos' folder.
        masks: The masks' folder, of the same tree.
        short_side: Photos are seen as if their short side had this many pixels …
        crop: … and a square of this many of them, or of the whole short side, is cut out, which is
        imgsz: … brought to this side, in one resampling.
        mask_size: Side R of the masks.
        long_side: Where the long side would have more pixels than this, the photo is seen that much smaller.
            None for no bound.
        seed: Of the augmentation.
        vary: Light and colours are changed, for teacher and student alike.
        strong: The student's photo is augmented more than the teacher's.

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
        """SHA-256 of the list of photos, as hexadecimal digits: what a sample's index stands for."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """One sample; where a file cannot be read, the next that can.

        Raises:
            ImageError: Too many files in a row cannot be read.
        """
        epoch, index = key
        skipped: list[str] = []
        for attempt in range(min(_TRIES, len(self))):
            place = (index + attempt) % len(self)
            try:
                sample = self._read(epoch, place)
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
            short, crop_px = self._seen(image.shape[1], image.shape[2])
            crop = random_crop(image.shape[1], image.shape[2], crop_px / short)
            points = _points(crop, image.shape, self.mask_size)
            masks = torch.from_numpy(read_masks(file, at=points, photo=(image.shape[1], image.shape[2])))
            image = take(image, crop, self.imgsz)
            if self.vary:
                image = vary(image)
            student = image
            if self.strong:
                # The blur's deviation is in pixels of the crop.
                student, cut = strengthen(image, self.imgsz / crop_px), random_cut()
                student = cut.of(student, 0)
                masks = cut.of(masks, False)
        # A mask of one pixel is noise; one of none has no mean.
        return Sample(image, student, masks[masks.sum((1, 2)) > 1], name)

    def _seen(self, height: int, width: int) -> tuple[float, float]:
        """A photo's short side and the crop's side, in pixels of the photo as it is seen."""
        short = float(self.short_side)
        if self.long_side is not None:
            short = min(short, self.long_side * min(height, width) / max(height, width))
        return short, min(float(self.crop), short)


def _points(crop: Crop, shape: torch.Size, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the mask's pixels lie in the photo, as fractions of its height and width."""
    steps = (np.arange(size) + 0.5) / size
    columns = (crop.left + steps * crop.side) / shape[2]
    return (crop.top + steps * crop.side) / shape[1], columns[::-1] if crop.flipped else columns


class Order(Sampler[list[tuple[int, int]]]):
    """Which samples this process reads, batch by batch; endless photos are cut into equal steps.

    A step's samples are the same however many processes and parts share them.

    Args:
        length: Number of photos.
        batch: Photos in a step, over all processes; a multiple of `parts` times `world`.
        parts: Batches that a process makes of its share in a step (gradient accumulation).
        first: The step to begin with.
        last: The step to end before.
        seed: Of the shuffling.
        rank: This process.
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
                yield [self._at(place) for place in range(start, start + size)]

    def _at(self, place: int) -> tuple[int, int]:
        epoch, offset = divmod(place, self.length)
        if epoch != self._epoch:
            words = np.random.SeedSequence([self.seed, epoch]).generate_state(1)
            generator = torch.Generator().manual_seed(int(words[0]))
            self._epoch, self._shuffled = epoch, torch.randperm(self.length, generator=generator)
        return epoch, int(self._shuffled[offset])
