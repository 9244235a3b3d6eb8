"""Photos with masks, in an order that every run repeats.

A sample depends on (seed, epoch, index) and a batch on (seed, step) alone: not on the number of workers or
processes, nor on interruptions.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

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

__all__ = [
    "Batch",
    "MaskedPhotos",
    "Order",
    "collate",
    "find_pairs",
    "first_readable",
    "names_digest",
    "reading",
]

_log = logging.getLogger(__name__)

Item = TypeVar("Item")

_SHOWN = 5  # names in a message
_TRIES = 16  # consecutive unreadable files before an error


@dataclass(frozen=True)
class Batch:
    """Augmented photos with their masks."""

    images: Tensor  # uint8 [N, 3, S, S], RGB, for the teacher
    student_images: Tensor  # the same crops with stronger augmentation
    masks: Tensor  # bool [M, R, R], the masks in these crops, photo after photo; none is empty
    counts: tuple[int, ...]  # number of masks of each photo
    names: tuple[str, ...]  # paths under the folder of photos
    skipped: tuple[str, ...] = ()  # errors of files that were skipped

    def to(self, device: torch.device) -> Batch:
        """Copy to a device; copies from pinned memory to a GPU are asynchronous."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def pin_memory(self) -> Batch:
        """Copy to pinned memory; called by torch's DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        names = ("images", "student_images", "masks")
        return replace(self, **{name: function(getattr(self, name)) for name in names})


def collate(batches: Sequence[Batch]) -> Batch:
    """Join batches."""
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        student_images=torch.cat([batch.student_images for batch in batches]),
        masks=torch.cat([batch.masks for batch in batches]),
        counts=tuple(count for batch in batches for count in batch.counts),
        names=tuple(name for batch in batches for name in batch.names),
        skipped=tuple(reason for batch in batches for reason in batch.skipped),
    )


@contextlib.contextmanager
def reading(
    photos: Dataset[Item],
    order: Order,
    *,
    workers: int,
    pin_memory: bool,
    join: Callable[[list[Any]], Any] = collate,
) -> Iterator[Iterator[Item]]:
    """Yield an iterator over batches, loaded ahead by worker processes that end with the block.

    `join` makes a batch of a list of items. Without workers, this process loads them. The iterator raises
    ImageError if photos cannot be used.
    """
    loader = DataLoader(
        photos,
        batch_sampler=order,
        collate_fn=join,
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


def _raise_plainly(batches: Iterator[Item]) -> Iterator[Item]:
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
    """Return the photos with a file of masks, as sorted paths under `images`; log the others."""
    for folder, content in ((images, "photos"), (masks, "masks of training/make_masks.py")):
        if not folder.is_dir():
            raise ImageError(f"{folder} is no folder; expected a folder of {content}")
    photos = {path.relative_to(images).as_posix() for path in files_below(images, image_suffixes())}
    masked = {path.relative_to(masks).with_suffix("").as_posix() for path in files_below(masks, {".npz"})}
    pairs = sorted(photo for photo in photos if _stem(photo) in masked)
    masks_alone = masked - {_stem(photo) for photo in photos}
    alone = {"photos without masks": photos - set(pairs), "masks without a photo": masks_alone}
    for kind, names in alone.items():
        if names:
            more = ", …" if len(names) > _SHOWN else ""
            _log.warning("ignored %d %s: %s%s", len(names), kind, ", ".join(sorted(names)[:_SHOWN]), more)
    if not pairs:
        raise ImageError(
            f"no photo under {images} ({len(photos)} photos) has masks under {masks} ({len(masked)} files): "
            "expected MASKS/REL/PATH.npz for IMAGES/REL/PATH.jpg"
        )
    return pairs


def first_readable(read: Callable[[int], Item], index: int, count: int) -> tuple[Item, tuple[str, ...]]:
    """Read one of `count` items: that of an index, or the next one if its files cannot be read.

    Returns it with the errors of those before it. Raises ImageError if too many in a row cannot be read.
    """
    skipped: list[str] = []
    for attempt in range(min(_TRIES, count)):
        try:
            return read((index + attempt) % count), tuple(skipped)
        except ImageError as error:
            skipped.append(str(error))
    raise ImageError(f"{len(skipped)} files in a row cannot be used; the last: {skipped[-1]}")


def names_digest(names: Sequence[str]) -> str:
    """Return the SHA-256 of a list of names, in hexadecimal."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _stem(photo: str) -> str:
    return photo.rpartition(".")[0]


@dataclass(eq=False)
class MaskedPhotos(Dataset[Batch]):
    """Photos and their masks, augmented as in the paper. Keys are (epoch, index); items have one photo.

    Resizing, crop and resizing to the encoder's input are one resampling. The settings are those of
    `training.runs.config.Config`.
    """

    images: Path
    masks: Path
    _: KW_ONLY
    short_side: int
    crop: int
    input_size: int
    mask_size: int
    long_side: int | None = None
    seed: int = 0
    vary: bool = True
    strong: bool = True

    def __post_init__(self) -> None:
        self.names = find_pairs(self.images, self.masks)

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Return the SHA-256 of the list of photos, in hexadecimal."""
        return names_digest(self.names)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Return a photo, or the next one if its files cannot be read; ImageError if too many cannot."""
        epoch, index = key
        batch, skipped = first_readable(functools.partial(self._read, epoch), index, len(self))
        return replace(batch, skipped=skipped)

    def _read(self, epoch: int, index: int) -> Batch:
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
            image = take(image, crop, self.input_size)
            if self.vary:
                image = vary(image)
            student = image
            if self.strong:
                # The standard deviation of the blur is in pixels of the crop.
                student, cut = strengthen(image, self.input_size / crop_px), random_cut()
                student = cut.of(student, 0)
                masks = cut.of(masks, False)
        # Masks of one pixel are noise, and empty masks have no mean.
        masks = masks[masks.sum((1, 2)) > 1]
        return Batch(image[None], student[None], masks, (len(masks),), (name,))

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


@dataclass(eq=False)
class Order(Sampler[list[tuple[int, int]]]):
    """Keys of this process's samples, batch by batch. Shuffled epochs follow one another without gaps.

    The samples of a step do not depend on the number of processes and parts.
    """

    length: int  # number of photos
    _: KW_ONLY
    batch: int  # photos per step, over all processes; a multiple of `parts` times `world`
    parts: int  # batches per step and process (gradient accumulation)
    first: int  # first step
    last: int  # step to stop before
    seed: int  # of the shuffling
    rank: int = 0  # of this process
    world: int = 1  # number of processes

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
        return epoch, int(_shuffled(self.length, self.seed, epoch)[offset])


@functools.lru_cache(maxsize=1)
def _shuffled(length: int, seed: int, epoch: int) -> Tensor:
    words = np.random.SeedSequence([seed, epoch]).generate_state(1)
    return torch.randperm(length, generator=torch.Generator().manual_seed(int(words[0])))
