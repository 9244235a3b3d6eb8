"""A pool of worker processes, and the number of cores."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any

from pixelclip_sdk.errors import PixelClipError

__all__ = ["SPAWN", "available_cores", "pool_of"]

SPAWN = multiprocessing.get_context("spawn")
"""Spawned: a process that is forked after torch started its threads or CUDA may hang."""


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def pool_of(
    workers: int, initializer: Callable[..., object], initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Yields a pool of `workers` spawned processes; cancels the tasks that wait when the body raises.

    The processes end with this one, also when it is killed.

    Raises:
        PixelClipError: A process died.
    """
    start = (initializer, *initargs)
    with ProcessPoolExecutor(workers, SPAWN, initializer=_start, initargs=start) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise PixelClipError(
                f"a process of {workers} died, likely for lack of memory. Use fewer --workers."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(initializer: Callable[..., object], *arguments: Any) -> None:
    # Each process of a pool holds both ends of its queue: that the parent was killed does not end its wait.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    initializer(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
