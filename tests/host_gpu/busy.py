"""Lets frames gather before an engine on a GPU begins with them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pixelclip_sdk import Segmentation, Segmenter
from pixelclip_sdk.device.pipeline import Pipeline, pipeline_of


@contextlib.contextmanager
def busy(segmenter: Segmenter) -> Iterator[Callable[[int], None]]:
    """Keep the engine's thread from its work until the end; yields what waits until so many frames wait."""
    pipeline = pipeline_of(segmenter._backend)
    assert isinstance(pipeline, Pipeline)
    free = threading.Event()
    pipeline._encoder.submit(lambda: free.wait(60))

    def waiting(count: int) -> None:
        for _ in range(6000):
            if len(pipeline._asks) == count:
                return
            time.sleep(0.01)
        raise AssertionError(f"{len(pipeline._asks)} frames wait")

    try:
        yield waiting
    finally:
        free.set()


def at_once(segmenter: Segmenter, calls: list[Callable[[], Segmentation]]) -> list[Future[Segmentation]]:
    """Do the calls in threads, with all of them waiting for the model before it begins."""
    with ThreadPoolExecutor(len(calls)) as pool, busy(segmenter) as waiting:
        futures = []
        for i, call in enumerate(calls):
            futures.append(pool.submit(call))
            waiting(i + 1)
    return futures
