"""Masks of a whole folder of photos: once, in parallel, resumable."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
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
from training.masks.source import MaskSource, NoMasksError, settings_of, tidy
from training.support.processes import SPAWN, pool_of

__all__ = ["SETTINGS", "Report", "find_photos", "make_masks"]

SETTINGS = "masks.json"
"""The file in a folder of masks that says how they were made."""
SKIPPED = "skipped.json"
"""The file that names the photos which have no masks, and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What became of the photos.

    Attributes:
        written: Photos whose masks were made now.
        kept: Photos whose masks were there already.
        without: Photo → why it has no masks.
        corrupt: Photo → what is wrong with its file, or with that of its masks.
    """

    written: int = 0
    kept: int = 0
    without: dict[str, str] = dataclasses.field(default_factory=dict)
    corrupt: dict[str, str] = dataclasses.field(default_factory=dict)


def find_photos(folder: Path) -> list[Path]:
    """The photos below a folder, at any depth, sorted; hidden ones are left out.

    Raises:
        ImageError: There is no such folder, no photo in it, or two that would share a file of masks.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; expected one with photos")
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
    """Write the masks of all photos of a folder that have none yet.

    Args:
        source: What makes them.
        images: The photos.
        out: `OUT/REL/PATH.npz` gets those of `IMAGES/REL/PATH.jpg`; files that are there and whole are kept.
        short_side: Most pixels of the masks' short side.
        workers: Processes. Those of a source that computes on GPUs take turns over them.
        progress: Show a bar on stderr.

    Returns:
        What was done. Photos without masks and damaged files are skipped and named, also in `skipped.json`.

    Raises:
        PixelClipError: `out` holds masks made in another way, or the source cannot work at all.
        OutputError: The masks cannot be written, e.g. because the disk is full. Those that are there stay.
    """
    photos = find_photos(images)
    _record(source, short_side, out)
    tasks, kept = [], 0
    for photo in photos:
        relative = photo.relative_to(images).with_suffix("")
        target = out / f"{relative}.npz"
        # The end of an archive is written last: a file without it was cut off by something else than us.
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
    """One photo's work; does it when called, in whichever process."""

    source: MaskSource
    photo: Path
    relative: Path
    target: Path
    short_side: int

    def __call__(self) -> _Outcome:
        try:
            write_masks(self.target, tidy(self.source(self.photo, self.relative, self.short_side)))
        except NoMasksError as error:
            return "without", str(error)
        except ImageError as error:
            return "corrupt", str(error)
        return "written", ""


def _run(tasks: list[_Task], workers: int) -> Iterator[tuple[_Task, _Outcome]]:
    """Each task with its outcome, in order."""
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task, task()
        return
    workers = min(workers, len(tasks))
    ranks = SPAWN.Queue()
    for rank in range(workers):
        ranks.put(rank)
    with pool_of(workers, _start, (ranks, tasks[0].source.on_gpus)) as pool:
        yield from zip(tasks, pool.map(_call, tasks, chunksize=4), strict=True)


def _call(task: _Task) -> _Outcome:
    return task()


def _start(ranks: multiprocessing.Queue[int], on_gpus: bool) -> None:
    """Make this process one of several: with a thread, and the n-th with the n-th GPU if it needs one."""
    # The processes share the cores among them already; torch reads this when it is loaded, if it is.
    os.environ["OMP_NUM_THREADS"] = "1"
    rank = ranks.get()
    if on_gpus:
        import torch

        if count := torch.cuda.device_count():
            torch.cuda.set_device(rank % count)


def _record(source: MaskSource, short_side: int, out: Path) -> None:
    """Write how the masks are made, or check that those which are there were made in the same way."""
    settings = {"schema_version": 1, "source": source.name, "short_side": short_side, **settings_of(source)}
    file = out / SETTINGS
    if file.exists():
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PixelClipError(f"{file} cannot be read: {error}. Choose another folder.") from error
        if there != settings:
            raise PixelClipError(
                f"{out} holds masks made with {there}; asked for are {settings}. "
                "Choose another folder, or remove this one."
            )
        return
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n")
