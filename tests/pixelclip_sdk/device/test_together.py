"""Frames that wait for a GPU go through the model together; the GPU is one in host memory."""

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from host_gpu.busy import at_once, busy
from host_gpu.onnx import HostSession

from pixelclip_sdk import BackendError, Segmentation, Segmenter
from pixelclip_sdk.models import find_bundle


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """The number of images of each run of the model."""
    found: list[int] = []
    run = HostSession.run_with_iobinding

    def noted(session, binding, options) -> None:
        found.append(binding.tensors["image"][1][0])
        run(session, binding, options)

    monkeypatch.setattr(HostSession, "run_with_iobinding", noted)
    return found


def check(found: Segmentation, expected: Segmentation) -> None:
    assert (found.labels == expected.labels).mean() > 0.999
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)


def test_frames_of_several_threads(gpu, cpu, frames, arrays, runs):
    segmenter = gpu.load()
    segmenter.predict(frames[0])
    calls = [
        lambda frame=frame: segmenter.predict(
            arrays.interface(gpu.cuda, frame) if frame is frames[1] else frame
        )
        for frame in frames
    ]
    runs.clear()
    for _ in range(2):
        for future, frame in zip(at_once(segmenter, calls), frames, strict=True):
            check(future.result(), cpu.predict(frame))
    assert runs == [4, 1, 1] * 2
    assert gpu.cuda.counts["capture"] == 2  # A graph of one image, and one of four.


def test_a_batch_of_pictures(gpu, cpu, frames, runs):
    segmenter = gpu.load()
    with ThreadPoolExecutor(1) as pool, busy(segmenter) as waiting:
        results = pool.submit(segmenter.predict_batch, [*frames, *frames])
        waiting(8)  # The others are not even on the GPU.
    for found, frame in zip(results.result(), [*frames, *frames], strict=True):
        check(found, cpu.predict(frame))
    assert sum(runs) == 12
    assert runs[:2] == [4, 4]


def test_a_warm_engine_has_its_graphs(gpu, frames, runs):
    segmenter = gpu.load()
    segmenter.warm_up((97, 131))
    assert set(runs) == {1, 4}
    assert gpu.cuda.counts["capture"] == 2
    results = at_once(segmenter, [lambda: segmenter.predict(frames[0])] * 4)
    assert all(future.result().labels.size for future in results)
    assert gpu.cuda.counts["capture"] == 2


def test_a_batch_on_the_gpu_may_be_overwritten_afterwards(gpu, cpu, frames, arrays, runs):
    segmenter = gpu.load()
    given = [arrays.interface(gpu.cuda, frame) for frame in frames[:4]]
    with ThreadPoolExecutor(1) as pool, busy(segmenter) as waiting:
        results = pool.submit(segmenter.predict_batch, given)
        waiting(4)
    found = results.result()
    for array in given:
        array.write(frames[5])
    assert runs == [4]
    for result, frame in zip(found, frames, strict=False):
        check(result, cpu.predict(frame))


def test_other_words_and_other_sizes_stay_apart(gpu, cpu, frames, runs):
    segmenter = gpu.load()
    other = segmenter.with_classes(cpu.embed(["dog", "sky", "road"]))
    sizes = [frame[:64] if i % 2 else frame for i, frame in enumerate(frames[:4])]
    calls = [lambda one=one: segmenter.predict(one) for one in sizes]
    calls += [lambda one=one: other.predict(one) for one in sizes]
    calls += [lambda one=one: segmenter.predict(one) for one in (frames[0], frames[2])]
    futures = at_once(segmenter, calls)
    expected = [cpu.predict(one) for one in sizes]
    expected += [cpu.with_classes(other.vocabulary).predict(one) for one in sizes]
    expected += [cpu.predict(frames[i]) for i in (0, 2)]
    for future, wanted in zip(futures, expected, strict=True):
        assert future.result().names == wanted.names
        check(future.result(), wanted)
    assert sorted(runs) == [1, 1, 1, 1, 1, 1, 4]


def test_frames_of_a_video_stay_in_order(gpu, cpu, frames, runs):
    """Frames of several sources go together, two frames of one source never."""
    from pixelclip_sdk import Smoother

    segmenter = gpu.load()
    smoothers = [Smoother(0.3) for _ in range(4)]
    plain = [Smoother(0.3) for _ in range(4)]
    for i in range(3):
        calls = [
            lambda j=j, i=i: segmenter.predict(frames[j], smoother=smoothers[j], time_s=i / 30)
            for j in range(4)
        ]
        for j, future in enumerate(at_once(segmenter, calls)):
            check(future.result(), cpu.predict(frames[j], smoother=plain[j], time_s=i / 30))
    assert runs == [4, 4, 4]


def test_a_stream_of_several_sources(gpu, cpu, frames, runs):
    segmenter = gpu.load()
    sources = [[(i / 30, frame) for i in range(3)] for frame in frames[:4]]
    stream = segmenter.stream(*sources)
    with ThreadPoolExecutor(1) as pool, busy(segmenter) as waiting:
        first = pool.submit(next, stream)
        waiting(4)  # Of a source, the second frame waits for the first.
    results = [first.result(), *stream]
    assert runs[0] == 4
    assert sum(runs) == 12
    for result in results:
        check(result, cpu.predict(frames[result.frame.source]))


def test_a_model_that_cannot_take_several(gpu, cpu, frames, monkeypatch, caplog):
    """The GPU may lack the memory. Each frame has its result, and its own error."""
    segmenter = gpu.load()
    segmenter.predict(frames[0])
    run = HostSession.run_with_iobinding

    def refuse(session, binding, options) -> None:
        if binding.tensors["image"][1][0] > 1:
            raise RuntimeError("CUDA failure 2: out of memory")
        run(session, binding, options)

    monkeypatch.setattr(HostSession, "run_with_iobinding", refuse)
    calls = [lambda frame=frame: segmenter.predict(frame) for frame in frames[:4]]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for future, frame in zip(at_once(segmenter, calls), frames, strict=False):
                check(future.result(), cpu.predict(frame))
    assert caplog.text.count("4 frames together failed, from now on one at a time") == 1
    gpu.onnx.sessions[0].fails = True
    monkeypatch.setattr(HostSession, "run_with_iobinding", run)
    for future in at_once(segmenter, calls):
        with pytest.raises(BackendError, match="onnxruntime failed on an image of"):
            future.result()
    gpu.onnx.sessions[0].fails = False
    check(segmenter.predict(frames[0]), cpu.predict(frames[0]))


def test_an_error_of_one_frame_is_its_own(gpu, cpu, frames, arrays):
    """A frame of another size than before needs memory, which the GPU lacks."""
    segmenter = gpu.load()
    for future in at_once(segmenter, [lambda: segmenter.predict(frames[0])] * 4):
        assert future.result().labels.size
    large = np.repeat(np.repeat(frames[1], 4, axis=0), 4, axis=1)
    given = arrays.interface(gpu.cuda, large)
    calls = [
        lambda frame=frame: segmenter.predict(frame) for frame in (frames[0], given, frames[2], frames[3])
    ]
    room = gpu.cuda.room
    with ThreadPoolExecutor(4) as pool, busy(segmenter) as waiting:
        futures = []
        for i, call in enumerate(calls):
            futures.append(pool.submit(call))
            waiting(i + 1)
        gpu.cuda.room = 1
    with pytest.raises(BackendError, match="out of memory"):
        futures[1].result()
    for i in (0, 2, 3):
        check(futures[i].result(), cpu.predict(frames[i]))
    gpu.cuda.room = room
    assert segmenter.predict(given).labels.shape == large.shape[:2]


def test_a_gpu_that_is_lost_while_frames_wait(gpu, cpu, frames):
    """Nothing of it can be called any more. No frame waits for ever."""
    segmenter = gpu.load()
    with ThreadPoolExecutor(4) as pool, busy(segmenter) as waiting:
        futures = [pool.submit(segmenter.predict, frame) for frame in frames[:4]]
        waiting(4)
        gpu.cuda.gpus = 0
    for future in futures:
        with pytest.raises(BackendError, match="cudaSetDevice failed"):
            future.result(60)
    gpu.cuda.gpus = 2
    check(segmenter.predict(frames[0]), cpu.predict(frames[0]))


def test_an_engine_that_is_closed_while_frames_wait(gpu, frames):
    segmenter = gpu.load()
    with ThreadPoolExecutor(5) as pool, busy(segmenter) as waiting:
        futures = [pool.submit(segmenter.predict, frame) for frame in frames[:4]]
        waiting(4)
        closed = pool.submit(segmenter.close)
    closed.result(60)
    for future in futures:  # The engine's thread or `close` was first.
        error = future.exception(60)
        assert error is None or (isinstance(error, BackendError) and "closed" in str(error))
    with pytest.raises(BackendError, match="closed"):
        segmenter.predict(frames[0])
    assert len(gpu.cuda.memory) == 0


@pytest.mark.usefixtures("gpu")
def test_a_bundle_with_a_batch_of_its_own(cpu, frames, runs, tmp_path):
    """Its model takes two images, never one."""
    bundle = tmp_path / "two"
    shutil.copytree(Path(find_bundle("pixelclip-lite").path), bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["input"]["batch"] = 2
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with Segmenter.from_pretrained(
        bundle, backend="onnx-cuda", classes=cpu.vocabulary, refine="off", input_size=(96, 128), threads=1
    ) as segmenter:
        for found, frame in zip(segmenter.predict_batch(frames[:3]), frames, strict=False):
            check(found, cpu.predict(frame))
        check(segmenter.predict(frames[3]), cpu.predict(frames[3]))
    assert set(runs) == {2}
