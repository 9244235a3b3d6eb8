"""The engine of one machine: threads that each take a picture from its file to its row."""

import itertools
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from pixelclip_sdk.batch.inputs import Picture
from pixelclip_sdk.batch.job import Done, Job, Shard, ShardResult
from pixelclip_sdk.segmenter import Segmenter

__all__ = ["segment_here"]

# Pictures per thread that are on their way, so that a slow one does not stop the others.
_AHEAD = 4


def segment_here(
    job: Job, segmenter: Segmenter, shards: Iterable[Shard], threads: int
) -> Generator[ShardResult, None, None]:
    """Segment shards one after the other. The threads do not wait at the end of a shard.

    While one thread is in the model, others read, decode and encode. Each runs the model on one core: that is
    faster than several cores for one picture, whose threads wait for each other (docs/adr/0008).

    Args:
        job: What is done with a picture.
        segmenter: The model of the job, loaded for one thread.
        shards: Shards, which are taken one by one.
        threads: Pictures at the same time.

    Yields:
        Results in the order of the shards.
    """
    waiting: deque[tuple[Shard, Future[Done]]] = deque()
    done: list[Done] = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pixelclip-batch")
    try:
        pictures: Iterable[tuple[Shard | None, Picture | None]] = (
            (shard, picture) for shard in shards for picture in shard.pictures
        )
        for shard, picture in itertools.chain(pictures, itertools.repeat((None, None))):
            if shard is not None and picture is not None:
                waiting.append((shard, pool.submit(job.segment, segmenter, picture, shard.known)))
                if len(waiting) < threads * _AHEAD:
                    continue
            elif not waiting:
                return
            first, future = waiting.popleft()
            done.append(future.result())
            if len(done) == len(first.pictures):
                yield ShardResult(first.number, done)
                done = []
    finally:
        pool.shutdown(cancel_futures=True)
