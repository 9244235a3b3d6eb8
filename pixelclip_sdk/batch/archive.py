"""Segment an archive: plan its shards, run an engine over them, write what comes back."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

from pixelclip_sdk.backends.cores import default_threads
from pixelclip_sdk.batch.inputs import Picture, find_pictures
from pixelclip_sdk.batch.job import Job, Shard, ShardResult, asks_for_gpu
from pixelclip_sdk.batch.local import segment_here
from pixelclip_sdk.batch.shards import ResultFolder
from pixelclip_sdk.errors import OutputError, PixelClipError
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.files import user_path
from pixelclip_sdk.support.redact import redact
from pixelclip_sdk.words.vocabulary import Classes, Vocabulary

__all__ = ["ArchiveProgress", "segment_archive"]

ENGINES = ("local", "ray")
FORMATS = ("parquet", "png")
SHARD_SIZE = 256
# The time left is reckoned from the rate of this many last seconds.
_RECENT_S = 120.0
# A Path of "s3://bucket" has one slash. One letter is a drive of Windows.
_ADDRESS = re.compile(r"([A-Za-z][\w+.-]+):/+(.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArchiveProgress:
    """How far the segmentation of an archive is, and in the end what became of it.

    Attributes:
        pictures: Pictures of the archive.
        done: Pictures whose rows are written, also by earlier runs.
        kept: Those of them whose rows are from an earlier run.
        failed: Those of them that this run could not segment; their rows have the error.
        seconds: Time since the start.
        left_s: Estimate of the time that is left, from the rate of the last two minutes; None at first.

    Examples:
        >>> from pixelclip_sdk import ArchiveProgress
        >>> progress = ArchiveProgress(pictures=9, done=4, kept=0, failed=1, seconds=2.0, left_s=2.5)
        >>> progress.done / progress.seconds
        2.0
    """

    pictures: int
    done: int = 0
    kept: int = 0
    failed: int = 0
    seconds: float = 0.0
    left_s: float | None = None


def segment_archive(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    classes: Classes | Vocabulary,
    *,
    model: str = "pixelclip-lite",
    engine: Literal["local", "ray"] = "local",
    format: Literal["parquet", "png"] = "parquet",
    threads: int | None = None,
    actors: int | None = None,
    shard_size: int = SHARD_SIZE,
    progress: Callable[[ArchiveProgress], None] | None = None,
    **options: Any,
) -> ArchiveProgress:
    """Segment many pictures into Parquet files, on this machine or on a Ray cluster.

    A picture that cannot be used becomes a row with its error. The same call continues a run that was
    stopped: rows of pictures whose content is known are kept, unless the words, the model or a setting
    changed. Apart from the timings, the files are then those of a run that was not stopped, to the byte.

    Args:
        inputs: Folders, picture files, patterns, ``.txt`` lists, ``.parquet`` files of paths or bytes, and
            addresses of these (``"s3://bucket/folder"``); see `pixelclip_sdk.batch.inputs.find_pictures`.
        out: Folder for the results: ``results/part-00000.parquet``, …; see `pixelclip_sdk.batch.shards`.
        classes: The words; see `Segmenter.set_classes`.
        model: A model's name or a bundle's folder. With Ray, every machine has it there.
        engine: ``"local"``: threads of this process. ``"ray"``: the cluster of the variable ``RAY_ADDRESS``,
            or without it a new one on this machine. The cluster's machines read the pictures.
        format: ``"parquet"``: label maps are a column, as PNG. ``"png"``: they are files.
        threads: Pictures at the same time, each on one core; None for all cores. With Ray: of an actor, and
            the CPUs that it reserves; None for two, or one where a machine has no more.
        actors: Ray's actors; None for as many as the cluster has room for.
        shard_size: Pictures of a file.
        progress: Called when a shard is written.
        options: Further arguments of `Segmenter.from_pretrained`, such as ``min_confidence``.

    Returns:
        What became of the pictures.

    Raises:
        ImageError: An input does not exist, or there are no pictures.
        VocabularyError: The words cannot be used.
        OutputError: `out` is an address, cannot be written, or has the results of other inputs.
        BackendUnavailableError: The extra ``batch`` or ``ray`` is not installed, or the device is missing.
        BackendError: The engine fails for every picture.
        PixelClipError: An argument is not one of its values.

    Examples:
        >>> from pixelclip_sdk import segment_archive
        >>> done = segment_archive(["photos"], "results", "cat, sofa")  # doctest: +SKIP
        >>> done.done, done.failed  # doctest: +SKIP
        (5000, 2)
    """
    _check(engine, format, threads=threads, actors=actors, shard_size=shard_size)
    if address := _ADDRESS.match(os.fspath(out)):
        shown = redact(f"{address[1]}://{address[2]}")
        raise OutputError(
            f"results cannot go to {shown}; expected a folder of this machine, to copy them from"
        )
    folder = user_path(out)
    pictures = find_pictures(inputs, folder)
    on_gpus = engine == "ray" and asks_for_gpu(options)
    if engine == "ray" and not on_gpus:
        options["device"] = "cpu"
    # A cluster's GPU need not be on this machine, which then only embeds the words.
    here = {**options, "device": "cpu", "backend": "auto"} if on_gpus else options
    with Segmenter.from_pretrained(model, classes=classes, threads=1, **here) as segmenter:
        if not on_gpus:  # What "auto" chose here is used everywhere, and decides the rows.
            options["backend"] = segmenter.backend
        job = Job.of(segmenter, model, options, format)
        results = ResultFolder(folder, job.facts, job.facts_hash)
        shards = _Shards(pictures, shard_size, results)
        run = {
            **job.facts,
            "inputs_sha256": _inputs_hash(inputs),
            "pictures": len(pictures),
            "shards": len(shards),
            "shard_size": shard_size,
        }
        results.begin(run)
        if engine == "local":
            made = segment_here(job, segmenter, shards, threads or default_threads())
        else:
            from pixelclip_sdk.batch.cluster import segment_on_ray

            made = segment_on_ray(job, shards, threads, actors)
        with contextlib.closing(made):
            last = _write_all(results, made, len(pictures), progress)
        results.finish(run, len(shards))
    return last


class _Shards:
    """The shards of an archive, each made when it is its turn: looking up what is known takes time."""

    def __init__(self, pictures: Sequence[Picture], size: int, results: ResultFolder) -> None:
        self._pictures, self._size, self._results = pictures, size, results

    def __len__(self) -> int:
        return -(-len(self._pictures) // self._size)

    def __iter__(self) -> Iterator[Shard]:
        for number in range(len(self)):
            part = self._pictures[number * self._size : (number + 1) * self._size]
            yield Shard(number, part, self._results.known(number))


def _write_all(
    results: ResultFolder,
    made: Generator[ShardResult, None, None],
    pictures: int,
    progress: Callable[[ArchiveProgress], None] | None,
) -> ArchiveProgress:
    """Write shards while the next ones are made; one is written at a time."""
    now = ArchiveProgress(pictures=pictures)
    recent: deque[tuple[float, int]] = deque([(0.0, 0)])
    start = time.perf_counter()
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="pixelclip-write") as writer:
        for result in made:
            if writing:
                writing.result()
            writing = writer.submit(results.write, result)
            seconds, done = time.perf_counter() - start, now.done + len(result.done)
            recent.append((seconds, done))
            while len(recent) > 2 and recent[0][0] < seconds - _RECENT_S:
                recent.popleft()
            rate = (done - recent[0][1]) / max(seconds - recent[0][0], 1e-9)
            now = dataclasses.replace(
                now,
                done=done,
                kept=now.kept + sum(item.cells is None for item in result.done),
                failed=now.failed + sum(bool(item.cells and item.cells["error"]) for item in result.done),
                seconds=seconds,
                left_s=(pictures - done) / rate,
            )
            if progress:
                progress(now)
        if writing:
            writing.result()
    return now


def _inputs_hash(inputs: Sequence[str | os.PathLike[str]]) -> str:
    """A hash, because addresses may contain passwords."""
    texts = [os.fspath(text) for text in inputs]
    places = [text if "://" in text else os.path.abspath(user_path(text)) for text in texts]  # noqa: PTH100
    return hashlib.sha256(json.dumps(places).encode()).hexdigest()


def _check(engine: str, form: str, **counts: int | None) -> None:
    for name, value, known in (("engine", engine, ENGINES), ("format", form, FORMATS)):
        if value not in known:
            raise PixelClipError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}")
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise PixelClipError(f"{name} is {count!r}; expected at least 1")
