"""What a GPU must do, with the same tests on one in host memory and, marked gpu, on a real one.

Labels are compared with those that the CPU makes of the GPU's own logits, so the engine's rounding does not
matter: what differs is the pipeline's fault.
"""

import contextlib
import dataclasses
import functools
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from host_gpu.busy import at_once
from host_gpu.kernels import compiler
from host_gpu.machine import machine

from pixelclip_sdk import BackendUnavailableError, Segmenter, Smoother, Vocabulary
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.bundle import InputSpec
from pixelclip_sdk.device import pipeline as pipeline_module
from pixelclip_sdk.device.edges import EDGE_KERNELS
from pixelclip_sdk.device.kept import Kept
from pixelclip_sdk.device.kernels import KERNELS, Kernels, Pixels
from pixelclip_sdk.device.tables import Resize
from pixelclip_sdk.postprocess import argmax_upsampled
from pixelclip_sdk.preprocess import fit

RNG = np.random.default_rng(0)


@dataclasses.dataclass
class Machine:
    """A machine with a GPU: its CUDA, and what loads the bundled model on it."""

    cuda: Cuda
    load: Callable[..., Segmenter]


@pytest.fixture(params=[pytest.param(False, id="host"), pytest.param(True, id="gpu", marks=pytest.mark.gpu)])
def there(request) -> Iterator[Machine]:
    with contextlib.ExitStack() as stack:
        if not request.param:
            if compiler() is None:
                pytest.skip("there is no C++ compiler (g++ or clang++)")
            stack.enter_context(machine())

        def load(**options) -> Segmenter:
            options = {"classes": ["cat", "sofa"], "refine": "off", "input_size": (96, 128)} | options
            return stack.enter_context(
                Segmenter.from_pretrained("pixelclip-lite", backend="onnx-cuda", **options)
            )

        try:
            cuda = Cuda()
            pipeline_module.compiled(cuda.gpu.compute_capability)
            load()
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        yield Machine(cuda, load)


class OnDevice:
    """A frame in memory of `Cuda`, by ``__cuda_array_interface__``."""

    def __init__(self, cuda: Cuda, content: np.ndarray, **changes) -> None:
        self._release, self._cuda = contextlib.ExitStack(), cuda
        flat = np.ascontiguousarray(content).reshape(-1)
        with cuda.current(), contextlib.ExitStack() as temporary:
            self.address = cuda.device_memory(flat.nbytes, self._release)
            host, stream = cuda.pinned_memory(flat.nbytes, temporary), cuda.stream(temporary)
            host[:] = flat
            cuda.upload(host, self.address, stream)
            cuda.synchronize(stream)
        self.__cuda_array_interface__ = {
            "shape": content.shape,
            "typestr": "|u1",
            "data": (self.address, False),
            "strides": None,
            "version": 3,
            "stream": None,
        } | changes

    def read(self, address: int, count: int) -> np.ndarray:
        with self._cuda.current(), contextlib.ExitStack() as temporary:
            host, stream = self._cuda.pinned_memory(count, temporary), self._cuda.stream(temporary)
            self._cuda.download(address, host, stream)
            self._cuda.synchronize(stream)
            return host.copy()

    def __del__(self) -> None:
        with self._cuda.current():
            self._release.close()


def words(count: int, of: Vocabulary) -> Vocabulary:
    rows = RNG.normal(size=(count, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"word {i}" for i in range(count)]
    return Vocabulary(names=names, embeddings=rows, text_hash=of.text_hash)


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours, and noise in the lower half."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    frame = np.stack([255 * x, 255 * y, 255 * (1 - x * y)], -1).astype(np.uint8)
    frame[height // 2 :] ^= RNG.integers(0, 64, frame[height // 2 :].shape, np.uint8)
    return frame


def test_the_models_input_is_that_of_the_cpu_bit_for_bit(there):
    cuda = there.cuda
    names = (*KERNELS, *EDGE_KERNELS)
    with cuda.current(), contextlib.ExitStack() as release:
        code = pipeline_module.compiled(cuda.gpu.compute_capability)
        kernels = Kernels(cuda.load_kernels(code, names))
        stream = cuda.stream(release)
        tables = Kept(cuda, stream)
        release.callback(tables.close)
        spec = InputSpec(height=320, width=320, multiple=32, fixed=False, keep_aspect=True)
        for height, width in ((270, 480), (97, 131), (31, 700), (1, 1)):
            frame = picture(height, width)
            on_gpu, expected = OnDevice(cuda, frame), fit(frame, spec)
            out = cuda.device_memory(expected.size, release)
            table, rows, columns = tables.resize(
                (frame.shape, spec), lambda frame=frame: Resize.of(frame.shape[:2], spec)
            )
            pixels = Pixels(on_gpu.address, width * 3, 3, (0, 1, 2))
            kernels.resize(pixels, table, rows, columns, out, stream)
            cuda.synchronize(stream)
            np.testing.assert_array_equal(on_gpu.read(out, expected.size).reshape(expected.shape), expected)


@pytest.mark.parametrize("count", [1, 40, 300])
def test_labels_are_those_of_its_logits(there, count):
    segmenter = there.load()
    segmenter.set_classes(words(count, segmenter.vocabulary))
    for height, width in ((97, 131), (270, 480)):
        frame = picture(height, width)
        result = segmenter.predict(frame)
        expected, _ = argmax_upsampled(result.logits, (height, width), covered=result.covered)
        assert (result.labels == expected).mean() > 0.9999
        on_gpu = segmenter.predict(OnDevice(there.cuda, frame))
        assert (on_gpu.labels == result.labels).mean() > 0.999
        np.testing.assert_array_equal(on_gpu.image, frame)


def test_labels_along_edges_are_those_of_the_cpu(there):
    segmenter = there.load(classes=["cat", "sofa", "grass", "wall", "sky"])
    frame = picture(270, 480)
    expected = segmenter.predict(frame, refine="off").refined("edges")
    found = segmenter.predict(OnDevice(there.cuda, frame), refine="edges")
    assert (found.labels == expected.labels).mean() > 0.999


def test_frames_of_every_layout(there):
    segmenter, frame = there.load(), picture(97, 131)
    expected = segmenter.predict(frame).labels
    pitched = np.zeros((97, 512), np.uint8)
    pitched[:, : 131 * 3] = frame.reshape(97, -1)
    rows = OnDevice(there.cuda, pitched, shape=frame.shape, strides=(512, 3, 1))
    planes, bgr = (OnDevice(there.cuda, one) for one in (frame.transpose(2, 0, 1), frame[:, :, ::-1]))
    for given, order in ((rows, "rgb"), (planes, "rgb"), (bgr, "bgr")):
        assert (segmenter.predict(given, channel_order=order).labels == expected).mean() > 0.999


def test_threads_come_and_go(there):
    """They begin all at once with sizes and engines that are new. Later ones need no more of the memory."""
    frames = [picture(60 + 9 * i, 130 - 7 * i) for i in range(4)]
    engines = [there.load(), there.load()]
    expected = [there.load().predict(frame).labels for frame in frames]
    barrier = threading.Barrier(4)

    def run(i: int) -> list[np.ndarray]:
        barrier.wait(60)
        return [engines[(i + k) % 2].predict(frames[i]).labels for k in range(2)]

    free = []
    for _ in range(4):
        with ThreadPoolExecutor(4) as pool:
            for found, labels in zip(pool.map(run, range(4)), expected, strict=True):
                assert all((one == labels).mean() > 0.99 for one in found)  # Each chose its algorithms.
        with there.cuda.current():
            free.append(there.cuda.call("cudaMemGetInfo"))  # The first value: what is free.
    assert free[1] - free[-1] < 32 << 20


def test_frames_that_wait_go_through_the_model_together(there):
    """Labels are those of the logits. Those may differ a little from the ones of a frame alone."""
    segmenter = there.load()
    segmenter.set_classes(words(40, segmenter.vocabulary))
    segmenter.warm_up((97, 131))
    frames = [picture(97, 131) for _ in range(8)]
    alone = [segmenter.predict(frame) for frame in frames]
    given = [OnDevice(there.cuda, frame) if i % 2 else frame for i, frame in enumerate(frames)]
    for _ in range(2):
        futures = at_once(segmenter, [functools.partial(segmenter.predict, one) for one in given])
        for future, single in zip(futures, alone, strict=True):
            found = future.result()
            expected, _ = argmax_upsampled(found.logits, (97, 131), covered=found.covered)
            assert (found.labels == expected).mean() > 0.9999
            np.testing.assert_allclose(found.logits, single.logits, atol=0.01)  # TF32, other algorithms.


def test_a_stream_and_results_that_are_kept(there):
    segmenter = there.load()
    frames = [picture(97, 131) for _ in range(8)]
    given = [OnDevice(there.cuda, frame) for frame in frames]
    results = list(segmenter.stream(given))
    for result, frame in zip(results, frames, strict=True):
        assert (result.labels == segmenter.predict(frame).labels).mean() > 0.999
    del results
    gc.collect()


def test_smoothing_is_that_of_the_cpu(there):
    """Of the GPU's own logits, over three frames that change in part and one that is another scene."""
    segmenter = there.load()
    frames = [picture(97, 131) for _ in range(4)]
    frames[3] = frames[3][::-1].copy()
    smoother, expected = Smoother(0.3), Smoother(0.3)
    for i, frame in enumerate(frames):
        raw = segmenter.predict(frame).logits
        wanted = expected.blend(raw, fit(frame, segmenter._input), segmenter, time_s=0.1 * i)
        given = OnDevice(there.cuda, frame)
        found = segmenter.predict(given, smoother=smoother, time_s=0.1 * i)
        assert found.labels_on_device is not None
        np.testing.assert_allclose(found.logits, wanted, atol=1e-4)
        # The first frame and the other scene begin anew.
        assert (np.abs(wanted - raw).max() > 1e-3) == (i in (1, 2))


@pytest.mark.gpu
def test_frames_and_labels_of_pytorch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    try:
        Cuda()
        segmenter = Segmenter.from_pretrained(
            "pixelclip-lite", backend="onnx-cuda", classes=["cat", "sofa"], refine="off"
        )
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with segmenter:
        frames = [picture(270, 480) for _ in range(4)]
        expected = [segmenter.predict(frame).labels for frame in frames]
        side = torch.cuda.Stream()
        for frame, labels in zip(frames, expected, strict=True):
            with torch.cuda.stream(side):
                torch.cuda._sleep(20_000_000)  # The frame is written late, on a stream of PyTorch.
                given = torch.from_numpy(frame).pin_memory().to("cuda", non_blocking=True)
                result = segmenter.predict(given)
                given.zero_()  # It was read.
                mine = torch.from_dlpack(result.labels_on_device)
                copy = mine.clone()
            side.synchronize()
            np.testing.assert_array_equal(copy.cpu().numpy(), result.labels)
            assert (result.labels == labels).mean() > 0.999
        planes = torch.from_numpy(frames[0]).cuda().permute(2, 0, 1)
        for given in (planes, planes.contiguous()):
            assert (segmenter.predict(given).labels == expected[0]).mean() > 0.999
        part = torch.from_numpy(frames[0]).cuda()[10:200, 20:300]
        labels = segmenter.predict(frames[0][10:200, 20:300]).labels
        assert (segmenter.predict(part).labels == labels).mean() > 0.999
