"""A GPU in host memory: the functions of cuda.bindings that the SDK calls, strict where CUDA would do harm.

Work on a stream is done as late as CUDA allows: only when something waits for it, and then only that stream,
up to that place, and what it waits for. So a missing event, wait or synchronisation gives wrong results here.
Bounds, kinds of memory, freed pointers and writes beyond a buffer are checked. Kernels run as their host
build.
"""

import contextlib
import ctypes
import functools
import sys
import threading
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from host_gpu.kernels import launch

HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 900, 901
_GUARD = 64
_KINDS = {
    HOST_TO_DEVICE: ("device", "pinned"),
    DEVICE_TO_HOST: ("pinned", "device"),
    DEVICE_TO_DEVICE: ("device", "device"),
}


def _droppable(method: Callable[..., tuple]) -> Callable[..., tuple]:
    """Remember the line of the SDK that calls, and do nothing if it is `dropped`."""

    @functools.wraps(method)
    def call(self: "HostCuda", *arguments: Any) -> tuple:
        caller: types.FrameType | None = sys._getframe(1)
        while caller and not _is_caller(caller.f_globals.get("__name__", "")):
            caller = caller.f_back
        if caller is not None:
            place = f"{caller.f_globals['__name__']}:{caller.f_lineno}"
            site = f"{place} {caller.f_code.co_name} {method.__name__}"
            self.sites.add(site)
            if site == self.dropped:
                return (0,)
        return method(self, *arguments)

    return call


def _is_caller(module: str) -> bool:
    return module.startswith("pixelclip_sdk.") and module != "pixelclip_sdk.backends.cuda"


def _unsafe(method: Callable[..., tuple]) -> Callable[..., tuple]:
    """Fail, and end the recording, while a thread records in a mode that forbids this call to this thread."""

    @functools.wraps(method)
    def call(self: "HostCuda", *arguments: Any) -> tuple:
        if self._is_forbidden():
            return self._end_recordings()
        return method(self, *arguments)

    return call


class HostCuda:
    """`cuda.bindings.runtime` and `cuda.bindings.driver` of GPUs in host memory.

    Attributes:
        counts: How often something was done: uploads, allocations, kernels, captures, replays, …
        room: Bytes of memory.
        lost: Whether the next synchronisation fails, and the work before it is lost.
        graphs: Recorded work by handle: graphs, and what can be launched of them.
        recorders: Which thread records on a stream, and in which mode: of CUDA's capture modes.
        ended: Streams whose recording another call has ended.
        while_recording: Called while ONNX Runtime records a graph.
        refuse_capture: Whether no work can be recorded.
        kept_graphs: So many graphs that can be launched refuse to be destroyed.
        before_synchronize: Called when a thread starts to wait for a stream.
        sites: The lines of the SDK that copied, recorded an event or waited, and what they called.
        dropped: One of them, which does nothing.
    """

    cudaStreamNonBlocking = 1
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2
    cudaStreamCaptureMode = types.SimpleNamespace(
        cudaStreamCaptureModeGlobal=GLOBAL, cudaStreamCaptureModeThreadLocal=THREAD_LOCAL
    )
    cudaError_t = types.SimpleNamespace(cudaSuccess=0)
    CUresult = types.SimpleNamespace(CUDA_SUCCESS=0)
    cudaMemoryType = types.SimpleNamespace(cudaMemoryTypeDevice=2, cudaMemoryTypeManaged=3)
    cudaMemcpyKind = types.SimpleNamespace(
        cudaMemcpyHostToDevice=HOST_TO_DEVICE,
        cudaMemcpyDeviceToHost=DEVICE_TO_HOST,
        cudaMemcpyDeviceToDevice=DEVICE_TO_DEVICE,
    )

    def __init__(self, gpus: int = 1) -> None:
        self.gpus, self.device = gpus, 0
        self.memory: dict[int, tuple[ctypes.Array, int, str, int]] = {}
        self.streams: dict[int, deque] = {1: deque()}
        self.events: dict[int, list[int]] = {}  # Event → [recorded, done, stream].
        self.functions: dict[int, str] = {}
        self.counts: Counter[str] = Counter()
        self.room = 1 << 34
        self.lost = False
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.recordings: dict[int, list[Callable[[], None]]] = {}  # By stream.
        self.recorders: dict[int, tuple[int, int]] = {}  # By stream.
        self.ended: set[int] = set()
        self.while_recording: Callable[[], object] = lambda: None
        self.refuse_capture = False
        self._modes: dict[int, int] = {}  # By thread.
        self.kept_graphs = 0
        self.before_synchronize: Callable[[], object] = lambda: None
        self.sites: set[str] = set()
        self.dropped: str | None = None
        self._one_at_a_time = threading.RLock()

    # Streams and events.

    def start(self, stream: int, work: Callable[[], None]) -> None:
        """Queue work, or record it."""
        recording = self.recordings.get(int(stream))
        (self.streams[int(stream)] if recording is None else recording).append(work)

    def run(self, stream: int, event: int | None = None, wanted: int = 0) -> None:
        """Do the work of a stream: all of it, or until it has recorded an event so often."""
        with self._one_at_a_time:
            queue = self.streams[stream]
            while queue and (event is None or self.events[event][1] < wanted):
                queue.popleft()()

    def finish(self) -> None:
        """Do all queued work."""
        with self._one_at_a_time:  # No other thread destroys a stream meanwhile.
            for stream in list(self.streams):
                self.run(stream)

    def cudaStreamCreateWithFlags(self, flags):
        handle = max(self.streams) + 7
        self.streams[handle] = deque()
        return 0, handle

    def cudaStreamDestroy(self, stream):
        with self._one_at_a_time:
            self.run(stream)
            del self.streams[stream]
        return (0,)

    @_droppable
    def cudaStreamSynchronize(self, stream):
        if int(stream) in self.recorders:
            return self._end_recordings()
        self.before_synchronize()
        if self.lost:
            self.lost = False
            for queue in self.streams.values():
                queue.clear()
            return (700,)
        self.run(stream)
        return (0,)

    @_droppable
    def cudaDeviceSynchronize(self):
        if self.recorders:
            return self._end_recordings()
        self.counts["device synchronize"] += 1
        self.finish()
        return (0,)

    def cudaEventCreateWithFlags(self, flags):
        handle = max(self.events, default=1000) + 1
        self.events[handle] = [0, 0, 0]
        return 0, handle

    def cudaEventDestroy(self, event):
        del self.events[event]
        return (0,)

    @_droppable
    def cudaEventRecord(self, event, stream):
        if int(stream) not in self.streams:
            return (400,)
        state = self.events[event]
        state[0], state[2] = state[0] + 1, int(stream)
        place = state[0]

        def done() -> None:
            state[1] = place

        self.start(stream, done)
        return (0,)

    @_droppable
    def cudaStreamWaitEvent(self, stream, event, flags):
        wanted, _, origin = self.events[event]
        # Events that were never recorded do not wait, as in CUDA.
        if wanted:
            self.start(stream, lambda: self.run(origin, event, wanted) if event in self.events else None)
        return (0,)

    @_unsafe
    def cudaEventSynchronize(self, event):
        """CUDA would wait. The SDK only paces itself, so nothing is done: no result may rely on it."""
        assert event in self.events
        return (0,)

    # Graphs.

    def cudaThreadExchangeStreamCaptureMode(self, mode):
        thread = threading.get_ident()
        before = self._modes.get(thread, GLOBAL)
        self._modes[thread] = mode
        return 0, before

    def check_thread_may_allocate(self) -> None:
        """Other libraries allocate in threads of ours: that must not end what another thread records."""
        assert self._modes.get(threading.get_ident(), GLOBAL) != GLOBAL

    def _is_forbidden(self) -> bool:
        """Whether this thread may not allocate, as `cudaThreadExchangeStreamCaptureMode` describes."""
        here = threading.get_ident()
        mode = self._modes.get(here, GLOBAL)
        return mode != RELAXED and any(
            began != RELAXED if thread == here else mode == began == GLOBAL
            for thread, began in list(self.recorders.values())
        )

    def _end_recordings(self) -> tuple[int, None]:
        self.ended |= set(self.recorders)
        return CAPTURE_UNSUPPORTED, None

    def cudaStreamBeginCapture(self, stream, mode):
        assert stream not in self.recordings
        self.recordings[stream] = []
        self.recorders[int(stream)] = threading.get_ident(), mode
        return (0,)

    def cudaStreamEndCapture(self, stream):
        recorded = self.recordings.pop(stream)
        thread, mode = self.recorders.pop(int(stream))
        assert thread == threading.get_ident() or mode == RELAXED
        if self.refuse_capture or int(stream) in self.ended:
            self.ended.discard(int(stream))
            return CAPTURE_INVALIDATED, None
        self.counts["capture"] += 1
        return 0, self._graph(recorded)

    def cudaGraphInstantiate(self, graph, flags):
        return 0, self._graph(self.graphs[graph])

    def _graph(self, work: list[Callable[[], None]]) -> int:
        handle = max(self.graphs, default=5000) + 1
        self.graphs[handle] = work
        return handle

    def cudaGraphLaunch(self, graph, stream):
        self.counts["replay"] += 1
        for work in self.graphs[graph]:
            self.start(stream, work)
        return (0,)

    def cudaGraphDestroy(self, graph):
        del self.graphs[graph]
        return (0,)

    def cudaGraphExecDestroy(self, graph):
        if self.kept_graphs:
            self.kept_graphs -= 1
            return (700,)
        return self.cudaGraphDestroy(graph)

    # Memory.

    def at(self, address: int, size: int, kind: str) -> np.ndarray:
        """The bytes at an address, if that many of that kind are there."""
        for start, (memory, length, found, _) in list(self.memory.items()):  # Threads allocate meanwhile.
            if start <= address and address + size <= start + length:
                assert found == kind, f"{found} memory where {kind} memory is needed"
                return np.frombuffer(memory, np.uint8)[_GUARD + address - start :][:size]
        raise AssertionError(f"{size} bytes of {kind} memory at {address}: no such allocation")

    def _allocate(self, size, kind):
        assert size > 0
        if size > self.cudaMemGetInfo()[1]:
            return 2, None
        self.counts[f"allocate {kind}"] += 1
        memory = (ctypes.c_uint8 * (size + 2 * _GUARD))()
        ctypes.memset(memory, 0xAB, len(memory))  # Not zero: nothing may rely on that.
        if self.dropped:  # Zero, because an index that was not copied must not end the process.
            ctypes.memset(ctypes.addressof(memory) + _GUARD, 0, size)
        address = ctypes.addressof(memory) + _GUARD
        self.memory[address] = memory, size, kind, self.device
        return 0, address

    def _free(self, address, kind):
        if kind == "device":
            self.finish()  # As CUDA does.
        memory, size, found, _ = self.memory.pop(address)
        assert found == kind
        ends = bytes(memory[:_GUARD]) + bytes(memory[_GUARD + size :])
        assert ends == b"\xab" * (2 * _GUARD), "written beyond the end"
        ctypes.memset(memory, 0, len(memory))  # A copy that did not wait shows.
        return (0,)

    @_unsafe
    def cudaMalloc(self, size):
        return self._allocate(size, "device")

    @_unsafe
    def cudaMallocHost(self, size):
        return self._allocate(size, "pinned")

    @_unsafe
    def cudaFree(self, address):
        return self._free(address, "device")

    @_unsafe
    def cudaFreeHost(self, address):
        return self._free(address, "pinned")

    @_droppable
    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        kinds = _KINDS[kind]
        self.counts[f"copy {kind}"] += 1
        to, origin = self.at(target, size, kinds[0]), self.at(source, size, kinds[1])
        self.start(stream, lambda: np.copyto(to, origin))
        return (0,)

    @_droppable
    def cudaMemsetAsync(self, target, value, size, stream):
        to = self.at(target, size, "device")
        self.start(stream, lambda: to.fill(value))
        return (0,)

    def cudaPointerGetAttributes(self, address):
        for start, (_, length, kind, gpu) in list(self.memory.items()):  # Threads allocate meanwhile.
            if start <= address < start + length:
                return 0, types.SimpleNamespace(type=2 if kind == "device" else 1, device=gpu)
        return 0, types.SimpleNamespace(type=0, device=-2)

    def cudaMemGetInfo(self):
        used = sum(length for _, length, _, _ in list(self.memory.values()))
        return 0, self.room - used, self.room

    # Devices, errors and kernels.

    def cudaGetDeviceCount(self):
        return 0, self.gpus

    def cudaGetDeviceProperties(self, index):
        return 0, types.SimpleNamespace(name=b"host memory", major=8, minor=6)

    def cudaGetDevice(self):
        return 0, self.device

    def cudaSetDevice(self, index):
        if not 0 <= index < self.gpus:
            return (101,)
        self.device = index
        return (0,)

    def cuDevicePrimaryCtxGetState(self, index):
        return 0, 0, True

    def cudaGetErrorString(self, status):
        return 0, b"out of memory" if status == 2 else b"some error"

    cuGetErrorString = cudaGetErrorString

    @_unsafe
    def cuModuleLoadData(self, code):
        assert code
        return 0, 1

    def cuModuleGetFunction(self, module, name):
        handle = len(self.functions) + 1
        self.functions[handle] = name.decode()
        return 0, handle

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra):
        assert gz == bz == 1
        assert shared == extra == 0
        assert 0 < bx * by <= 1024
        assert 0 < gx < 1 << 31
        assert 0 < gy < 1 << 16
        name = self.functions[function]
        self.counts[name] += 1
        self.start(stream, lambda: launch(name, (gx, gy), (bx, by), *parameters))
        return (0,)

    @contextlib.contextmanager
    def array(self, content: np.ndarray) -> Iterator[int]:
        """An array of another library on the current GPU; yields its address."""
        content = np.ascontiguousarray(content)
        _, address = self.cudaMalloc(content.nbytes)
        self.at(address, content.nbytes, "device")[:] = content.reshape(-1).view(np.uint8)
        yield address
        self.cudaFree(address)
