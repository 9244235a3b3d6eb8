"""Errors and interrupts while frames wait for a GPU: none waits for ever, nothing is kept, all are read."""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from host_gpu.busy import at_once, busy
from host_gpu.onnx import HostSession

from pixelclip_sdk import BackendError, ImageError, Segmenter, Smoother
from pixelclip_sdk.backends.cuda import RECORDING, Cuda
from pixelclip_sdk.device.pipeline import Pipeline, pipeline_of
from pixelclip_sdk.device.slots import Slot
from pixelclip_sdk.device.started import Started


def pipeline(segmenter: Segmenter) -> Pipeline:
    found = pipeline_of(segmenter._backend)
    assert isinstance(found, Pipeline)
    return found


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def taken_slots(segmenter: Segmenter, monkeypatch) -> Callable[[], int]:
    """Returns what counts the slots, taken from now on, that are neither free nor closed."""
    slots, seen = pipeline(segmenter)._slots, []
    take = slots.take

    def noted() -> Slot:
        slot = take()
        seen.append(weakref.ref(slot))
        return slot

    monkeypatch.setattr(slots, "take", noted)

    def lost() -> int:
        there = {id(slot): slot for ref in seen if (slot := ref()) is not None}
        free = {id(slot) for slot in slots._free}
        return sum(bool(slot._device._kept) for key, slot in there.items() if key not in free)

    return lost


def test_an_interrupt_before_the_engine_knows_of_a_frame(gpu, frames, monkeypatch):
    """The frames after it do not wait for ever."""
    segmenter = gpu.load()
    encoder = pipeline(segmenter)._encoder
    submit = encoder.submit

    def interrupted(_: object) -> None:
        monkeypatch.setattr(encoder, "submit", submit)
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segmenter.predict(frames[0])
    assert not pipeline(segmenter)._asks
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(segmenter.predict, frames[1]).result(60).labels.size


def test_a_log_that_raises(gpu, frames, monkeypatch):
    segmenter = gpu.load()
    run = HostSession.run_with_iobinding

    def refuse(session, binding, options) -> None:
        if binding.tensors["image"][1][0] > 1:
            raise RuntimeError("CUDA failure 2: out of memory")
        run(session, binding, options)

    def broken(record: logging.LogRecord) -> bool:
        raise ValueError(record.msg)

    monkeypatch.setattr(HostSession, "run_with_iobinding", refuse)
    log = logging.getLogger("pixelclip_sdk.device.pipeline")
    log.addFilter(broken)
    try:
        futures = at_once(segmenter, [lambda: segmenter.predict(frames[0])] * 4)
        assert all(future.result(60).labels.size for future in futures)
    finally:
        log.removeFilter(broken)


def test_an_error_that_is_not_of_their_number(gpu, frames):
    """An engine that fails for a while takes four again afterwards."""
    segmenter = gpu.load()
    calls = [lambda: segmenter.predict(frames[0])] * 4
    gpu.onnx.sessions[0].fails = True
    for future in at_once(segmenter, calls):
        assert isinstance(future.exception(), BackendError)
    gpu.onnx.sessions[0].fails = False
    before = gpu.cuda.counts["run"]
    for future in at_once(segmenter, calls):
        assert future.result().labels.size
    assert gpu.cuda.counts["run"] == before + 1


@pytest.mark.usefixtures("no_collections")
def test_failed_frames_of_a_batch_keep_no_memory(gpu, frames, arrays, monkeypatch):
    segmenter = gpu.load()
    given = [arrays.interface(gpu.cuda, frame) for frame in frames]

    def fail(*_: object, **__: object) -> None:
        raise BackendError("cuLaunchKernel failed")

    lost = taken_slots(segmenter, monkeypatch)
    monkeypatch.setattr(pipeline(segmenter)._kernels, "label", fail)
    with ThreadPoolExecutor(1) as pool, busy(segmenter) as waiting:
        results = pool.submit(segmenter.predict_batch, given)
        waiting(6)
    assert "cuLaunchKernel failed" in str(results.exception())
    del results
    assert lost() == 0


def test_a_batch_that_fails_returns_when_the_other_frames_were_read(gpu, frames, arrays):
    segmenter = gpu.load()
    given = [arrays.interface(gpu.cuda, frame) for frame in frames[:3]]
    gpu.cuda.device = 1
    elsewhere = arrays.interface(gpu.cuda, frames[3])
    gpu.cuda.device = 0
    with ThreadPoolExecutor(1) as pool, busy(segmenter) as waiting:
        results = pool.submit(segmenter.predict_batch, [*given, elsewhere])
        waiting(3)
        time.sleep(0.2)
        assert not results.done()
    with pytest.raises(ImageError, match="frame is on gpu:1"):
        results.result(60)


@pytest.mark.usefixtures("no_collections")
def test_a_smoothed_stream_that_is_closed_keeps_no_memory(gpu, frames, monkeypatch):
    segmenter = gpu.load()
    lost = taken_slots(segmenter, monkeypatch)
    for _ in range(2):
        stream = segmenter.stream((i / 30, frames[i % 6]) for i in range(1000))
        next(stream)
        with ThreadPoolExecutor(1) as pool, busy(segmenter):
            time.sleep(0.3)  # One worker waits for the engine, the other one for its turn.
            closed = pool.submit(stream.close)
            time.sleep(0.1)
        closed.result()
    del stream
    assert lost() == 0


def test_an_interrupted_frame_is_not_in_the_average(gpu, frames, monkeypatch):
    segmenter, smoother = gpu.load(), Smoother(0.3)
    segmenter.predict(frames[0], smoother=smoother, time_s=0)
    wait = Started.wait

    def interrupted(_: Started) -> None:
        monkeypatch.setattr(Started, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(Started, "wait", interrupted)
    with ThreadPoolExecutor(1) as pool, busy(segmenter) as waiting:
        result = pool.submit(segmenter.predict, frames[1], smoother=smoother, time_s=0.03)
        waiting(1)
        time.sleep(0.1)
        assert not result.done()  # The frame may not be overwritten yet.
    assert isinstance(result.exception(60), KeyboardInterrupt)
    expected = segmenter.predict(frames[2]).logits
    found = segmenter.predict(frames[2], smoother=smoother, time_s=0.06).logits
    np.testing.assert_array_equal(found, expected)


def test_a_size_for_which_memory_lacks_leaves_nothing_behind(gpu, frames, monkeypatch):
    """Again and again: of the buffers of a size, the first fits and the second does not."""
    segmenter = gpu.load()
    segmenter.predict(frames[0])
    allocate = Cuda.device_memory
    left: list[int] = []

    def scarce(cuda, size, release) -> int:
        if left and not left.pop():
            raise BackendError("cudaMalloc failed: out of memory (CUDA error 2)")
        return allocate(cuda, size, release)

    narrow = frames[0][:, :40].copy()
    used = []
    for _ in range(3):
        with monkeypatch.context() as patch:
            new_shape = type(pipeline(segmenter)._encoder)._new_shape

            def short(*given: object, new_shape=new_shape) -> object:
                left[:] = [0, 1]
                return new_shape(*given)

            patch.setattr(Cuda, "device_memory", scarce)
            patch.setattr(type(pipeline(segmenter)._encoder), "_new_shape", short)
            with pytest.raises(BackendError, match="out of memory"):
                segmenter.predict(narrow)
        gc.collect()
        used.append(sum(size for _, size, kind, _ in gpu.cuda.memory.values() if kind == "device"))
    assert used[0] == used[-1]
    assert segmenter.predict(narrow).labels.size


def test_a_model_that_is_dropped_while_another_one_loads(gpu, frames):
    """Loading holds a lock that the first model's thread wants, which holds the lock that closing wants."""
    segmenter = gpu.load()
    segmenter.predict(frames[0])
    encoder = pipeline(segmenter)._encoder
    inside, go = threading.Event(), threading.Event()

    def work() -> None:
        inside.set()
        go.wait(60)
        with RECORDING:
            pass

    encoder.submit(work)
    assert inside.wait(60)
    with RECORDING:
        go.set()
        encoder.close_finally(encoder.close)  # What the garbage collector calls.
    for _ in range(600):
        if not gpu.cuda.memory:
            break
        time.sleep(0.1)
    assert not gpu.cuda.memory
    with pytest.raises(BackendError, match="closed"):
        segmenter.predict(frames[0])


def test_an_engine_goes_on_after_the_main_thread_ended(gpu, cpu, frames):
    """Python then ends the threads of pools, while other threads go on."""
    segmenter = gpu.load()
    pipeline(segmenter)._encoder._thread.shutdown()
    for frame in frames[:2]:
        np.testing.assert_array_equal(segmenter.predict(frame).labels, cpu.predict(frame).labels)
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        segmenter.predict(frames[0])
