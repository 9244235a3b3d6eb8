"""Masks for a folder of photos: in parallel and resumable."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import operator
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from pixelclip_sdk.errors import ImageError, PixelClipError
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.images import find_images
from training.masks.format import write_masks
from training.masks.source import MaskSource, NoMasksError, drop_useless, settings_of
from training.support.processes import SPAWN, pool_of

__all__ = ["SETTINGS", "Report", "find_photos", "make_masks"]

SETTINGS = "masks.json"
"""File in a folder of masks with the settings that made them."""
SKIPPED = "skipped.json"
"""File in a folder of masks that lists the photos without masks and the reasons."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Result of `make_masks`.

    Attributes:
        written: Number of photos with new masks.
        kept: Number of photos that had masks before.
        without: Photo → reason why it has no masks.
        corrupt: Photo → error in its file or in the file of its masks.
    """

    written: int = 0
    kept: int = 0
    without: dict[str, str] = dataclasses.field(default_factory=dict)
    corrupt: dict[str, str] = dataclasses.field(default_factory=dict)


def find_photos(folder: Path) -> list[Path]:
    """Return the photos below a folder, sorted; hidden files are skipped.

    Raises:
        ImageError: The folder does not exist, has no photo, or has two photos with the same file of masks.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; expected a folder of photos")
    photos = find_images(folder, recursive=True)
    first: dict[Path, Path] = {}
    for photo in photos:
        other = first.setdefault(photo.with_suffix(""), photo)
        if other is not photo:
            raise ImageError(f"{other} and {photo.name} would share a file of masks; rename one of them")
    return photos


def make_masks(
    source: MaskSource,
    images: Path,
    out: Path,
    *,
    short_side: int = 512,
    workers: int = 1,
    progress: bool = True,
) -> Report:
    """Make masks for all photos of a folder that have none yet.

    Args:
        source: The source of the masks.
        images: Folder of the photos.
        out: Folder of the masks: `OUT/REL/PATH.npz` for `IMAGES/REL/PATH.jpg`. Complete files are kept.
        short_side: Largest short side of the masks, in pixels.
        workers: Number of processes. For a source on GPUs, they are spread over the GPUs.
        progress: Show a progress bar on stderr.

    Returns:
        The report. Photos without masks and damaged files are skipped; `skipped.json` lists them.

    Raises:
        PixelClipError: `out` has masks with other settings, or the source cannot work.
        OutputError: The masks cannot be written, for example to a full disk. Existing masks stay.
    """
    photos = find_photos(images)
    _record(source, short_side, out)
    tasks, kept = [], 0
    for photo in photos:
        relative = photo.relative_to(images).with_suffix("")
        target = out / f"{relative}.npz"
        # An archive ends with its directory: a file without it was truncated.
        if target.is_file() and zipfile.is_zipfile(target):
            kept += 1
        else:
            tasks.append(_Task(source, photo, relative, target, short_side))
    report = Report(kept=kept)
    written = 0
    with tqdm(total=len(photos), initial=kept, unit="photo", disable=not progress) as bar:
        for task, (kind, reason) in _run(tasks, workers):
            bar.update()
            if kind == "written":
                written += 1
            else:
                skipped = report.without if kind == "without" else report.corrupt
                skipped[str(task.photo.relative_to(images))] = reason
    with atomic_write(out / SKIPPED) as temporary:
        temporary.write_text(
            json.dumps({"without": report.without, "corrupt": report.corrupt}, indent=1) + "\n"
        )
    return dataclasses.replace(report, written=written)


_Outcome = tuple[Literal["written", "without", "corrupt"], str]


@dataclasses.dataclass(frozen=True)
class _Task:
    """Makes and writes the masks of one photo, in any process."""

    source: MaskSource
    photo: Path
    relative: Path
    target: Path
    short_side: int

    def __call__(self) -> _Outcome:
        try:
            write_masks(self.target, drop_useless(self.source(self.photo, self.relative, self.short_side)))
        except NoMasksError as error:
            return "without", str(error)
        except ImageError as error:
            return "corrupt", str(error)
        return "written", ""


def _run(tasks: list[_Task], workers: int) -> Iterator[tuple[_Task, _Outcome]]:
    """Yield each task with its outcome, in order."""
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, task()
        return
    workers = min(workers, len(tasks))
    ranks = SPAWN.Queue()
    for rank in range(workers):
        ranks.put(rank)
    with pool_of(workers, _start, (ranks, tasks[0].source.on_gpus)) as pool:
        yield from zip(tasks, pool.map(operator.call, tasks, chunksize=4), strict=True)


def _start(ranks: multiprocessing.Queue[int], on_gpus: bool) -> None:
    """Set up a worker process: one thread, and one GPU if the source uses GPUs."""
    # There is a process per core already. Torch reads this when it is imported.
    os.environ["OMP_NUM_THREADS"] = "1"
    rank = ranks.get()
    if on_gpus:
        import torch

        if count := torch.cuda.device_count():
            torch.cuda.set_device(rank % count)


def _record(source: MaskSource, short_side: int, out: Path) -> None:
    """Write the settings, or check that existing masks were made with the same settings."""
    settings = {"schema_version": 1, "source": source.name, "short_side": short_side, **settings_of(source)}
    file = out / SETTINGS
    if file.exists():
        try:
            existing = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PixelClipError(f"{file} cannot be read: {error}. Choose another folder.") from error
        if existing != settings:
            raise PixelClipError(
                f"{out} has masks made with {existing}, not with {settings}. "
                "Choose another folder, or remove this one."
            )
        return
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n")
