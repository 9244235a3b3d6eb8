"""Smoothing over time by the GPU's kernels, built for this machine's processor, against `Smoother.blend`."""

import contextlib
import gc
import os
import random
import time
from collections.abc import Iterator

import numpy as np
import pytest
from host_gpu.kernels import compiler
from host_gpu.machine import machine
from random_inputs import cosines, picture

from pixelclip_sdk import BackendError, BackendUnavailableError, Segmenter, Smoother, smoothing
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.device.kept import Kept
from pixelclip_sdk.device.kernels import KERNELS, Kernels
from pixelclip_sdk.device.pipeline import pipeline_of
from pixelclip_sdk.device.smooth import SMOOTH_KERNELS, Smoothing
from pixelclip_sdk.smoothing import Turn

# The standard deviation is summed in another order than numpy's, which changes the weight of new logits.
NEAR = 1e-6
WORDS = object()


class Gpu:
    """Smoothing on a GPU in host memory, from arrays on the host."""

    def __init__(self, host, release: contextlib.ExitStack) -> None:
        self.host, self.cuda = host, Cuda()
        kernels = Kernels(self.cuda.load_kernels(b"code", (*KERNELS, *SMOOTH_KERNELS)))
        self.stream = self.cuda.stream(release)
        self._kernels, self._tables = kernels, Kept(self.cuda, self.stream)
        self.smoothing = Smoothing(self.cuda, kernels, self._tables)

    def blend(
        self, smoother: Smoother, logits: np.ndarray, image: np.ndarray, words: object = WORDS, **when
    ) -> np.ndarray:
        """As `Smoother.blend`, and every row after those of `logits` stays as it is."""
        raw = np.concatenate([logits, np.full((1, *logits.shape[1:]), 7, np.float32)])
        with contextlib.ExitStack() as arrays:
            grid, seen, found = (
                arrays.enter_context(self.host.array(one)) for one in (raw, image, np.zeros(1, np.int32))
            )
            self._kernels.check_finite(grid, logits.size, found, self.stream)
            given = (grid, logits.shape, seen, image.shape[:2], found, self.stream)
            self.smoothing.blend(Turn(smoother, **when), words, *given)
            self.cuda.synchronize(self.stream)
            got = self.host.at(grid, raw.nbytes, "device").view(np.float32).reshape(raw.shape).copy()
        assert (got[-1] == 7).all()
        return got[:-1]

    def close(self) -> None:
        self.smoothing.close()
        self._tables.close()


@pytest.fixture
def on_gpu() -> Iterator[Gpu]:
    if compiler() is None:
        pytest.skip("there is no C++ compiler (g++ or clang++)")
    with machine() as (host, _), contextlib.ExitStack() as release:
        made = Gpu(host, release)
        yield made
        made.close()  # Freeing checks that nothing was written beyond the end.
        assert not host.memory


def test_the_small_grey_picture_is_pillows(on_gpu):
    """Of inputs of all strides; Pillow 13 filters columns first where the height shrinks far more."""
    rng = np.random.default_rng(0)
    sizes = [((320, 576), (10, 18)), ((320, 320), (20, 20)), ((64, 64), (8, 8)), ((640, 640), (40, 40))]
    sizes += [((97, 131), (6, 9)), ((33, 31), (9, 9)), ((7, 500), (1, 20))]
    for (height, width), grid in sizes:
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        expected = smoothing._small_grey(image, grid)
        with on_gpu.host.array(image) as address:
            small = on_gpu.smoothing._small_grey(address, (height, width), grid, on_gpu.stream)
            on_gpu.cuda.synchronize(on_gpu.stream)
            found = on_gpu.host.at(small, expected.size * 3, "device").reshape(*expected.shape, 3).copy()
        for channel in range(3):
            np.testing.assert_array_equal(found[:, :, channel], expected)


@pytest.mark.parametrize(
    ("count", "grid", "stride"),
    [
        (1, (1, 1), 32),
        (2, (3, 1), 16),
        (3, (7, 9), 8),
        (20, (10, 18), 32),
        (150, (20, 20), 16),
        (300, (11, 14), 8),
        (5, (40, 33), 4),
    ],
)
def test_it_is_that_of_the_host(on_gpu, count, grid, stride):
    """A still picture, noise, a moving part, a cut, other words, other sizes, and times out of order."""
    (height, width), rng = grid, np.random.default_rng(count)
    size = height * stride, width * stride
    scene, part = picture(*size), (slice(size[0] // 3 + 1), slice(size[1] // 2 + 1))
    clean, names = cosines(count, *grid), object()
    host, device = Smoother(0.3), Smoother(0.3)
    blended = 0
    order = "first still noise moving moving late cut noise words still row moving back still"
    for i, what in enumerate(order.split()):
        if what == "words":
            names = object()
        if what == "cut":
            scene = picture(*size, seed=9)[::-1, ::-1].copy()
        if what == "moving":
            scene[part] = np.roll(scene[part], stride // 2, axis=1)
            scene[part][::2] += 40
            clean[:, : grid[0] // 3 + 1] += rng.normal(0, 0.08, clean[:, : grid[0] // 3 + 1].shape)
        logits = clean + rng.normal(0, 0.02, clean.shape).astype(np.float32)
        seen = scene if what == "still" else np.clip(scene + rng.normal(0, 5, scene.shape), 0, 255)
        if what == "row":  # A picture of another aspect ratio.
            logits, seen = logits[:, :1], seen[:stride]
        seen = np.ascontiguousarray(seen.astype(np.uint8))
        when = {"index": i, "time_s": i / 30 + {"late": 0.5, "back": -1.0}.get(what, 0)}
        expected = host.blend(logits.copy(), seen, names, **when)
        found = on_gpu.blend(device, logits, seen, names, **when)
        np.testing.assert_allclose(found, expected, atol=NEAR, err_msg=f"{i} {what}")
        blended += not np.array_equal(expected, logits)
    assert blended >= 6


def test_what_was_decided_on_the_gpu(on_gpu):
    """A cut starts anew, a changed region follows, and a still one does not."""
    still, moved = np.full((64, 64, 3), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8)
    moved[:16, :16] = 200
    before = np.zeros((2, 8, 8), np.float32)
    before[0, :, 4:] = 1
    after = before.copy()
    after[0, 0, 0] = after[0, 7, 0] = 1
    smoother = Smoother(1.0)
    on_gpu.blend(smoother, before, still, time_s=0.0)
    got = on_gpu.blend(smoother, after, moved, time_s=0.01)
    assert got[0, 0, 0] == 1
    assert got[0, 7, 0] == pytest.approx(0.01, rel=0.01)
    np.testing.assert_array_equal(on_gpu.blend(smoother, before, 255 - still, time_s=0.02), before)


def test_damaged_logits_are_not_kept(on_gpu):
    image = picture(40, 60)
    for value in (np.nan, np.inf):
        smoother, good = Smoother(0.3), cosines(4, 5, 6)
        bad = good.copy()
        bad[2, 3, 4] = value
        for i, logits in enumerate((good, bad, bad, good + 1, good)):
            got = on_gpu.blend(smoother, logits, image, time_s=i / 30)
        assert np.isfinite(got).all()
        assert got[0, 0, 0] > good[0, 0, 0] + 0.5  # One frame before this one counts.


def test_a_smoother_keeps_its_average_and_loses_it_on_another_side(on_gpu):
    image, logits = picture(64, 64), [cosines(3, 8, 8, seed=i) for i in range(4)]
    one, other = Smoother(0.3), Smoother(0.3)
    for i in range(3):  # Two sources in turns.
        got = [
            on_gpu.blend(s, grid, image, time_s=i / 30) for s, grid in ((one, logits[i]), (other, logits[3]))
        ]
        np.testing.assert_allclose(got[1], logits[3], atol=NEAR)
    assert np.abs(got[0] - logits[2]).max() > 0.05
    assert one.blend(logits[0], image, WORDS, time_s=0.1) is logits[0]
    np.testing.assert_array_equal(on_gpu.blend(one, logits[1], image, time_s=0.2), logits[1])
    second = Smoothing(on_gpu.cuda, on_gpu._kernels, on_gpu._tables)
    first, on_gpu.smoothing = on_gpu.smoothing, second
    np.testing.assert_array_equal(on_gpu.blend(one, logits[2], image, time_s=0.3), logits[2])
    second.close()
    on_gpu.smoothing = first


def test_memory_is_freed_when_the_smoother_is_gone(on_gpu):
    image, logits = picture(64, 64), cosines(3, 8, 8)
    kept = Smoother(0.3)
    on_gpu.blend(kept, logits, image)
    before, allocated = len(on_gpu.host.memory), on_gpu.host.counts["allocate device"]
    for _ in range(3):
        on_gpu.blend(kept, logits, image)
    # Three arrays of this test each time, and nothing else.
    assert on_gpu.host.counts["allocate device"] == allocated + 9
    gone = Smoother(0.3)
    on_gpu.blend(gone, logits, image)
    assert len(on_gpu.host.memory) > before
    del gone
    gc.collect()
    on_gpu.smoothing.free_gone()
    assert len(on_gpu.host.memory) == before


# Through the pipeline: streams, and frames one by one.


@pytest.fixture
def moving(photo) -> list[tuple[float, np.ndarray]]:
    """Times and frames of a camera that moves slowly, with noise, and of another scene after a cut."""
    rng = np.random.default_rng(0)
    parts = [photo[20 + i : 214 + i : 2, 30 + 3 * i : 292 + 3 * i : 2] for i in range(8)]
    parts[6:] = [part[::-1, ::-1] for part in parts[6:]]
    noisy = [np.clip(part + rng.normal(0, 3, part.shape), 0, 255).astype(np.uint8) for part in parts]
    return [(i / 30, frame) for i, frame in enumerate(noisy)]


def same(found, expected) -> None:
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    assert (found.labels == expected.labels).mean() > 0.999


@pytest.mark.parametrize("refine", ["off", "edges"])
def test_default_streams_stay_on_the_gpu(gpu, cpu, moving, arrays, local, refine):
    """Of frames on the host and on the GPU; two workers of changing speed, and two sources at once."""
    segmenter, cpu = gpu.load(classes=local, refine=refine), cpu.with_classes(local)
    backwards = [(i / 30, frame) for i, (_, frame) in enumerate(moving[::-1])]
    expected = [list(cpu.stream(frames, refine=refine)) for frames in (moving, backwards)]
    plain = [cpu.predict(frame, refine=refine) for _, frame in moving]
    assert all(
        (a.labels != b.labels).mean() > 0.01 for a, b in zip(plain[1:6], expected[0][1:6], strict=True)
    )
    gpu.cuda.before_synchronize = lambda: time.sleep(random.uniform(0, 0.003))
    up = [(time_s, arrays.interface(gpu.cuda, frame)) for time_s, frame in moving]
    before = gpu.cuda.counts["copy 1"]
    results = list(segmenter.stream(up, backwards))
    for source in range(2):
        own = [result for result in results if result.frame.source == source]
        for result, wanted in zip(own, expected[source], strict=True):
            same(result, wanted)
            assert (result.labels_on_device is not None) == (source == 0)
            assert set(result.speed) == set(wanted.speed)
    assert gpu.cuda.counts["blend"] == 16
    assert gpu.cuda.counts["copy 1"] - before < 80  # Eight frames, and tables.


def test_frames_one_by_one_are_smoothed_like_a_stream(gpu, cpu, moving, arrays):
    """Also where a result is dropped before its work was done; and nothing is allocated any more."""
    segmenter, smoother, other = gpu.load(), Smoother(0.3), Smoother(0.3)
    for i, (frame, wanted) in enumerate(zip(moving, cpu.stream(moving), strict=True)):
        on_gpu = arrays.interface(gpu.cuda, frame[1])
        same(segmenter.predict(frame[1], smoother=other, time_s=frame[0]), wanted)
        if i < 2:
            before = 0
        elif i == 2:
            before = {name: n for name, n in gpu.cuda.counts.items() if name.startswith("allocate")}
        else:
            before["allocate device"] += 1  # The frame.
            now = {name: n for name, n in gpu.cuda.counts.items() if name.startswith("allocate")}
            assert now == before
        result = segmenter.predict(on_gpu, smoother=smoother, time_s=frame[0])
        if i in (2, 5):
            same(result, wanted)
        del result
    # It starts anew on the host, and again on the GPU.
    for settings in ({"min_confidence": 0.1}, {}):
        found = segmenter.predict(moving[5][1], smoother=smoother, time_s=1.0, **settings)
        np.testing.assert_allclose(found.logits, cpu.predict(moving[5][1]).logits, atol=1e-5)


def test_new_words_in_the_middle_of_a_stream(gpu, cpu, moving):
    def labels(segmenter):
        for i, result in enumerate(segmenter.stream(iter(moving), buffer="all")):
            yield result
            if i == 2:
                segmenter.set_classes(["dog", "sky", "road", "tree"])

    segmenter = gpu.load()
    words = segmenter.vocabulary
    smoother, other = Smoother(0.3), cpu.with_classes(["dog", "sky", "road", "tree"])
    for result, (time_s, frame) in zip(labels(segmenter), moving, strict=True):
        one = cpu if result.names == words.names else other
        same(result, one.predict(frame, smoother=smoother, time_s=time_s))


def test_a_gpu_without_memory_and_damaged_logits(gpu, cpu, moving, arrays, monkeypatch):
    segmenter, smoother = gpu.load(), Smoother(0.3)
    (_, first), (_, second), (_, third) = moving[:3]
    segmenter.predict(first)  # Everything but smoothing has its memory.
    segmenter.predict(second, smoother=smoother, time_s=0.0)
    room, gpu.cuda.room = gpu.cuda.room, 1
    with pytest.raises(BackendError, match="out of memory"):
        segmenter.predict(first, smoother=Smoother(0.3), time_s=0.0)
    gpu.cuda.room = room
    gpu.cuda.lost = True
    with pytest.raises(BackendError, match="some error"):
        segmenter.predict(first, smoother=smoother, time_s=0.1)
    same(segmenter.predict(third, smoother=smoother, time_s=0.2), cpu.predict(third))

    compute = type(gpu.onnx.sessions[0])._compute

    def damaged(session, tensors) -> None:
        compute(session, tensors)
        gpu.cuda.at(tensors["logits"][0], 4, "device").view(np.float32)[0] = np.nan

    with monkeypatch.context() as patch:
        patch.setattr(type(gpu.onnx.sessions[0]), "_compute", damaged)
        result = segmenter.predict(arrays.interface(gpu.cuda, first), smoother=smoother, time_s=0.3)
        with pytest.raises(BackendError, match="NaN or infinite"):
            _ = result.labels
    same(segmenter.predict(second, smoother=smoother, time_s=0.4), cpu.predict(second))


def test_a_stream_that_is_dropped_or_whose_engine_is_closed(gpu, moving):
    segmenter = gpu.load()
    smoothing = pipeline_of(segmenter._backend)._smoothing
    stream = segmenter.stream(moving)
    next(stream)
    assert len(smoothing._averages) == 1
    del stream
    gc.collect()
    segmenter.predict(moving[0][1])
    assert len(smoothing._averages) == len(smoothing._gone) == 0
    stream = segmenter.stream(moving)
    next(stream)
    segmenter.close()
    with pytest.raises(BackendError, match="closed"):
        list(stream)
    del stream
    gc.collect()
    assert not gpu.cuda.memory


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_frees_nothing(gpu, moving):
    segmenter, smoother = gpu.load(), Smoother(0.3)
    segmenter.predict(moving[0][1], smoother=smoother)
    before = len(gpu.cuda.memory)
    if (child := os.fork()) == 0:
        del smoother
        gc.collect()
        with contextlib.suppress(BackendError):
            segmenter.predict(moving[0][1])
        segmenter.close()
        os._exit(len(gpu.cuda.memory) == before)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    same(segmenter.predict(moving[0][1], smoother=smoother), segmenter.predict(moving[0][1]))


@pytest.mark.gpu
@pytest.mark.parametrize("refine", ["off", "edges"])
def test_on_a_real_gpu(moving, refine):
    """TF32 and fp16 are not asked for, so logits differ by rounding."""
    words = ["cat", "sofa", "grass", "wall", "cloth"]
    try:
        segmenter = Segmenter.from_pretrained("pixelclip-lite", backend="onnx-cuda", classes=words)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with segmenter, Segmenter.from_pretrained("pixelclip-lite", backend="onnx", classes=words) as cpu:
        plain = [cpu.predict(frame, refine=refine) for _, frame in moving]
        expected = list(cpu.stream(moving, refine=refine))
        apart = [np.abs(one.logits - other.logits).max() for one, other in zip(plain, expected, strict=True)]
        found = list(segmenter.stream(moving, refine=refine))
        rounding = np.abs(segmenter.predict(moving[0][1]).logits - plain[0].logits).max()
        for result, wanted in zip(found, expected, strict=True):
            assert np.abs(result.logits - wanted.logits).max() < max(apart) / 4 + rounding
            assert (result.labels == wanted.labels).mean() > 0.98
