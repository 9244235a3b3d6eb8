"""The engine of a Ray cluster: actors that each hold a model and take shards.

This process writes the results. So they need no file system that all machines see, each shard is written
once, and a worker that dies costs the shards in its hands, which another makes again.
"""

import contextlib
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

from pixelclip_sdk.backends.cores import default_threads
from pixelclip_sdk.batch.job import Job, Shard, ShardResult, asks_for_gpu
from pixelclip_sdk.batch.local import segment_here
from pixelclip_sdk.errors import BackendError, BackendUnavailableError, PixelClipError
from pixelclip_sdk.segmenter import Segmenter
from pixelclip_sdk.support.packages import imported
from pixelclip_sdk.support.redact import redact

__all__ = ["segment_on_ray"]

_EXTRA = '"pixelclip-sdk[ray]"'
_THREADS = 2
# Of a cluster that this process starts. The shards on their way are far smaller.
_OBJECT_STORE_BYTES = 256 << 20
_CONNECT_S = 10
# Rounds without a single result, after which it is not by chance that workers die.
_TRIES = 3

_log = logging.getLogger(__name__)


def segment_on_ray(
    job: Job, shards: Iterable[Shard], threads: int | None, actors: int | None
) -> Generator[ShardResult, None, None]:
    """Segment shards on a Ray cluster. Shards that were lost with a worker or a machine are made again.

    Args:
        job: What is done with a picture.
        shards: The shards; all are planned before the first is segmented.
        threads: Pictures at the same time in an actor, and the CPUs that it reserves; see `_room`.
        actors: The number of actors; None for as many as there is room for.

    Yields:
        Results in the order in which they were finished.

    Raises:
        BackendUnavailableError: Ray is not installed, the cluster cannot be reached, or it has no room.
        BackendError: The cluster failed, or workers die with the same shards again and again.
        PixelClipError: An actor's error.
    """
    with _cluster() as ray:
        left = {shard.number: pickle.dumps(shard) for shard in shards}
        in_vain = 0
        while left:
            before = len(left)
            reason: Exception | None = None
            room = _room(ray.nodes(), threads, actors, asks_for_gpu(job.options))
            try:
                for result in _run(ray, job, list(left.values()), *room):
                    if left.pop(result.number, None):
                        yield result
            except ray.exceptions.RayError as error:
                reason = error
            in_vain = 0 if len(left) < before else in_vain + 1
            if left and in_vain == _TRIES:
                paths = [redact(picture.path) for picture in pickle.loads(min(left.items())[1]).pictures]
                raise BackendError(
                    f"the Ray cluster failed {_TRIES} times in a row for {len(left)} shards, the first of "
                    f"them from {paths[0]} to {paths[-1]}: {reason or 'its workers died'}. Has a worker "
                    "enough memory for each of these pictures?"
                ) from reason
            if left:
                _log.warning("%d shards were lost with a worker or a machine; they are made again", len(left))


def _run(
    ray: Any, job: Job, items: Sequence[bytes], threads: int, actors: int, gpus: int
) -> Iterator[ShardResult]:
    """Segment pickled shards, each at most once: those in a worker that dies are left out.

    Ray could give them to the actor again when it has started anew. After the loss of a machine the cluster
    may have no room for that, and Ray would wait for ever.
    """
    # A task is a block: with a shard each, shards are spread over the actors and lost one by one.
    blocks = ray.data.from_items([{"shard": item} for item in items], override_num_blocks=len(items))
    blocks.context.max_errored_blocks = -1
    with warnings.catch_warnings():  # Ray means to replace such options, and has no other for retries yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        made = blocks.map_batches(
            ShardActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(items)), max_tasks_in_flight_per_actor=1),
            fn_constructor_kwargs={"job": job, "threads": threads},
            num_cpus=threads,
            num_gpus=gpus,
            max_task_retries=0,
        )
    for batch in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for content in batch["result"].to_pylist():
            result = pickle.loads(content)
            if isinstance(result, Exception):
                raise result
            yield result


class ShardActor:
    """Segments the shards of a batch. Ray makes one in each worker.

    Errors are results: Ray would take them for those of the machine, and lose their kind.
    """

    def __init__(self, job: Job, threads: int) -> None:
        self._job, self._threads = job, threads
        self._segmenter: Segmenter | PixelClipError
        try:
            self._segmenter = job.open()
        except Exception as error:
            self._segmenter = _as_ours(error)

    def __call__(self, batch: Any) -> Any:
        """From a table with a column ``shard`` to one with a column ``result``, both pickled."""
        arrow = imported("pyarrow", _EXTRA)
        shards = [pickle.loads(content) for content in batch["shard"].to_pylist()]
        results: list[ShardResult | PixelClipError]
        if isinstance(self._segmenter, PixelClipError):
            results = [self._segmenter]
        else:
            try:
                results = [*segment_here(self._job, self._segmenter, shards, self._threads)]
            except Exception as error:
                results = [_as_ours(error)]
        return arrow.table({"result": arrow.array(map(pickle.dumps, results), arrow.binary())})


def _as_ours(error: Exception) -> PixelClipError:
    if isinstance(error, PixelClipError):
        return error
    return BackendError(f"a worker of the Ray cluster failed: {type(error).__name__}: {error}")


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Connect to a cluster, or start one on this machine that ends with the block; yields the module ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # A cluster that starts here reports to nobody.
    ray = imported("ray", _EXTRA)
    imported("ray.data", _EXTRA)
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS")
    here = {
        "address": "local",
        "num_cpus": default_threads(),
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
    }
    # Else Ray's workers give way to every other program of the machine; those of "local" do not.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        if address:
            _check_answers(address)
        # Not "auto", which joins whatever cluster of another program runs on this machine.
        ray.init(**({"address": address} if address else here), **quiet)
    except Exception as error:  # Ray raises errors of many kinds.
        ray.shutdown()
        raise BackendUnavailableError(
            f"the Ray cluster of RAY_ADDRESS={address} cannot be reached: {error}. Start it, or unset the "
            "variable to start one on this machine."
            if address
            else f"Ray cannot start on this machine: {error}. Is it short of memory, or very busy?"
        ) from error
    try:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # What it reports is handled here.
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError if nobody listens at an address ``host:port``. Ray itself tries for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()


def _room(
    nodes: Iterable[dict[str, Any]], threads: int | None, actors: int | None, on_gpu: bool
) -> tuple[int, int, int]:
    """The CPUs of an actor, the number of actors, and the GPUs of an actor.

    An actor has two CPUs, or as many as the smallest machine has. More threads in one process wait for
    Python, more processes hold more models.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if threads is None:
        threads = min([_THREADS, *(int(machine["CPU"]) for machine in machines)])
    gpus = int(on_gpu)
    room = sum(
        min(int(machine["CPU"]) // threads, int(machine.get("GPU", 0)) if on_gpu else 1 << 30)
        for machine in machines
    )
    if not room:
        wanted = f"{threads} CPUs" + (" and a GPU" if on_gpu else "")
        raise BackendUnavailableError(
            f"no machine of the Ray cluster has {wanted}; it has {len(machines)} machines with "
            f"{sum(int(m['CPU']) for m in machines)} CPUs and {sum(int(m.get('GPU', 0)) for m in machines)} "
            "GPUs. Choose fewer --threads, or another --device."
        )
    return threads, actors or room, gpus
