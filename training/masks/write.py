"""Masks for a folder of photos: in parallel and resumable."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import operator
import os
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from pixelclip_sdk.errors import ImageError, PixelClipError
from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.support.images import find_images
from pixelclip_sdk.support.json_files import read_json
from training.masks.format import write_masks
from training.masks.source import MaskSource, NoMasksError, drop_useless, settings_of
from training.support.processes import SPAWN, pool_of

__all__ = ["SETTINGS", "Report", "find_photos", "make_masks"]

# Files in a folder of masks: the settings that made them, and the photos without masks with the reasons.
SETTINGS, SKIPPED = "masks.json", "skipped.json"


@dataclasses.dataclass
class Report:
    """Result of `make_masks`."""

    written: int = 0  # number of photos with new masks
    kept: int = 0  # number of photos that had masks before
    without: dict[str, str] = dataclasses.field(default_factory=dict)  # photo → reason
    corrupt: dict[str, str] = dataclasses.field(default_factory=dict)  # photo → error in one of its files


def find_photos(folder: Path) -> list[Path]:
    """Return the photos below a folder, sorted; ImageError if two of them have the same file of masks."""
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
    """Make masks for all photos of a folder that have none yet: `OUT/REL/PATH.npz` for `IMAGES/REL/PATH.jpg`.

    Masks have a short side of at most `short_side` pixels. For a source on GPUs, the worker processes are
    spread over the GPUs. Photos without masks and damaged files are skipped; `skipped.json` lists them.
    Raises PixelClipError if `out` has masks with other settings, or cannot be written; existing masks stay.
    """
    photos = find_photos(images)
    _record(source, short_side, out)
    report = Report()
    tasks: dict[str, Callable[[], _Outcome]] = {}
    for photo in photos:
        name = photo.relative_to(images)
        target = out / name.with_suffix(".npz")
        # An archive ends with its directory: a file without it was truncated.
        if target.is_file() and zipfile.is_zipfile(target):
            report.kept += 1
        else:
            tasks[str(name)] = partial(_make, source, photo, name.with_suffix(""), target, short_side)
    outcomes = _run(list(tasks.values()), workers, source.on_gpus)
    with tqdm(total=len(photos), initial=report.kept, unit="photo", disable=not progress) as bar:
        for name, (kind, reason) in zip(tasks, outcomes, strict=True):
            bar.update()
            if kind == "written":
                report.written += 1
            else:
                getattr(report, kind)[name] = reason
    skipped = {"without": report.without, "corrupt": report.corrupt}
    with atomic_write(out / SKIPPED) as temporary:
        temporary.write_text(json.dumps(skipped, indent=1) + "\n")
    return report


_Outcome = tuple[Literal["written", "without", "corrupt"], str]


def _make(source: MaskSource, photo: Path, relative: Path, target: Path, short_side: int) -> _Outcome:
    """Make and write the masks of one photo, in any process."""
    try:
        write_masks(target, drop_useless(source(photo, relative, short_side)))
    except NoMasksError as error:
        return "without", str(error)
    except ImageError as error:
        return "corrupt", str(error)
    return "written", ""


def _run(tasks: list[Callable[[], _Outcome]], workers: int, on_gpus: bool) -> Iterator[_Outcome]:
    """Yield the outcomes of tasks, in order."""
    if workers == 1 or len(tasks) < 2:
        for task in tasks:
            yield task()
        return
    workers = min(workers, len(tasks))
    ranks = SPAWN.Queue()
    for rank in range(workers):
        ranks.put(rank)
    with pool_of(workers, _start, (ranks, on_gpus)) as pool:
        yield from pool.map(operator.call, tasks, chunksize=4)


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
            existing = read_json(file)
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
