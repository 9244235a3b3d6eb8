"""Tables in a GPU's memory that are made once for a size, or for a choice of classes."""

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device.kernels import Rows, Taps
from pixelclip_sdk.device.tables import Filter, Points, Resize, Upsample

__all__ = ["Kept"]

# A video has one size and one choice of classes, which take five tables.
_TABLES = 32

Made = TypeVar("Made")


class Kept:
    """The tables of a pipeline. The caller holds the engine's lock.

    Args:
        cuda: The GPU.
        stream: They are copied on this stream.
    """

    def __init__(self, cuda: Cuda, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream
        self._entries: OrderedDict[tuple[Any, ...], tuple[Any, contextlib.ExitStack]] = OrderedDict()

    def resize(self, key: tuple[Any, ...], make: Callable[[], Resize]) -> tuple[Resize, Taps, Taps]:
        """A resize, and where the filters of its rows and columns are."""

        def put(release: contextlib.ExitStack) -> tuple[Resize, Taps, Taps]:
            table = make()
            filters: tuple[Filter, Filter] = (table.rows, table.columns)
            arrays = [part for one in filters for part in (one.start, one.count, one.weights)]
            places, taps = self._put(arrays, release), [one.weights.shape[1] for one in filters]
            return table, _taps(places[:3], taps[0]), _taps(places[3:], taps[1])

        return self._get(key, put)

    def upsample(self, key: tuple[Any, ...], make: Callable[[], Upsample]) -> tuple[Rows, Rows]:
        """Where the points beside the rows and the columns of pixels are."""

        def put(release: contextlib.ExitStack) -> tuple[Rows, Rows]:
            table = make()
            axes: tuple[Points, Points] = (table.rows, table.columns)
            places = self._put([part for one in axes for part in (one.lower, one.upper, one.weight)], release)
            return Rows(*places[:3]), Rows(*places[3:])

        return self._get(key, put)

    def array(self, key: tuple[Any, ...], make: Callable[[], np.ndarray]) -> int:
        """Where an array is."""
        return self._get(key, lambda release: self._put([make()], release)[0])

    def close(self) -> None:
        """Free the tables."""
        while self._entries:
            self._entries.popitem()[1][1].close()

    def _get(self, key: tuple[Any, ...], put: Callable[[contextlib.ExitStack], Made]) -> Made:
        entry = self._entries.pop(key, None)
        if entry is None:
            with contextlib.ExitStack() as release:
                entry = put(release), release.pop_all()
        self._entries[key] = entry
        if len(self._entries) > _TABLES:
            self._entries.popitem(last=False)[1][1].close()  # Freeing waits for the work that uses it.
        made: Made = entry[0]
        return made

    def _put(self, arrays: list[np.ndarray], release: contextlib.ExitStack) -> tuple[int, ...]:
        """Copy arrays to the GPU and wait; returns their addresses. `release` frees them."""
        addresses = []
        with contextlib.ExitStack() as temporary:
            for array in arrays:
                content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                host = self._cuda.pinned_memory(max(content.nbytes, 1), temporary)
                host[: content.nbytes] = content
                addresses.append(self._cuda.device_memory(len(host), release))
                self._cuda.upload(host, addresses[-1], self._stream)
            self._cuda.synchronize(self._stream)
        return tuple(addresses)


def _taps(places: tuple[int, ...], taps: int) -> Taps:
    return Taps(places[0], places[1], places[2], taps)
