"""The TensorRT backend runs: in host memory everywhere, on a real GPU with `make test-gpu`.

conftest.py has both. Tests marked gpu skip, with the reason, what this machine or its GPU cannot run.
"""

import functools
import gc
import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from host_gpu.arrays import DlpackArray
from host_gpu.busy import at_once
from host_gpu.kernels import compiler
from host_gpu.tensorrt import HostContext, output_shape

from export.to_trt import Options, compile_engine
from pixelclip_sdk import (
    BackendError,
    BackendUnavailableError,
    Bundle,
    OutputError,
    Segmenter,
    Smoother,
    engine_check,
)
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.engine import engine_files, trust
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.backends.tensorrt import TensorRTBackend, _Session
from pixelclip_sdk.device.started import Started
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.files import sha256

RNG = np.random.default_rng(0)
# fp32 products use TF32 on a GPU: 10 bits of mantissa, through some 50 layers.
COSINE_TOLERANCE = 0.02


@pytest.fixture(scope="module")
def lite() -> Bundle:
    return find_bundle("pixelclip-lite")


@pytest.fixture(scope="module")
def reference(lite) -> Iterator[OnnxBackend]:
    with open_backend(lite, "onnx", "cpu") as backend:
        yield backend


@pytest.fixture(scope="module")
def compiled(machine, tmp_path_factory) -> Path:
    """The bundled model with an engine of all sizes."""
    return machine.compile(tmp_path_factory.mktemp("compiled") / "lite", Options())


@pytest.fixture(scope="module")
def backend(compiled) -> Iterator[TensorRTBackend]:
    with open_backend(Bundle.open(compiled), "tensorrt") as backend:
        yield backend


def words(count: int, width: int = 384) -> np.ndarray:
    rows = RNG.normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pictures(count: int, height: int = 192, width: int = 224) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_a_photo_gets_the_labels_of_the_cpu(compiled, photo):
    classes = ["cat", "sofa", "grass", "wall", "face"]
    with (
        Segmenter.from_pretrained(compiled, backend="onnx", device="cpu", classes=classes) as cpu,
        Segmenter.from_pretrained(compiled, backend="tensorrt", classes=classes) as gpu,
    ):
        expected, found = cpu.predict(photo), gpu.predict(photo)
        assert (expected.labels == found.labels).mean() > 0.99
        assert np.abs(expected.scores - found.scores).max() < COSINE_TOLERANCE
        assert gpu.backend == "tensorrt"


def test_auto_takes_the_engine(compiled):
    with Segmenter.from_pretrained(compiled) as segmenter:
        assert segmenter.backend == "tensorrt"


def test_shapes_and_words_come_and_go(backend, reference):
    """Twice each: run, then replayed; more shapes than contexts are kept; then back to the first."""
    cases = [(1, 224, 288, 20), (1, 224, 288, 3), (2, 192, 384, 3), (1, 384, 192, 512), (4, 192, 224, 1)]
    for count, height, width, classes in [*cases, cases[0]]:
        text = words(classes)
        for _ in range(2):
            images = pictures(count, height, width)
            expected = reference.logits(images, text)
            for _ in range(2):
                np.testing.assert_allclose(backend.logits(images, text), expected, atol=COSINE_TOLERANCE)


def test_features_with_and_without_words_before(backend, reference):
    images = pictures(1)
    expected = reference.features(images)
    np.testing.assert_allclose(backend.features(images), expected, atol=COSINE_TOLERANCE)
    backend.logits(images, words(30))
    np.testing.assert_allclose(backend.features(images), expected, atol=COSINE_TOLERANCE)


def test_features_before_any_words(compiled, reference):
    images = pictures(1)
    with open_backend(Bundle.open(compiled), "tensorrt") as fresh:
        np.testing.assert_allclose(fresh.features(images), reference.features(images), atol=COSINE_TOLERANCE)


def test_words_changed_in_place_are_sent_again(backend, reference):
    images, text = pictures(1), words(5)
    backend.logits(images, text)
    text[:] = words(5)
    np.testing.assert_allclose(
        backend.logits(images, text), reference.logits(images, text), atol=COSINE_TOLERANCE
    )


def test_a_result_is_not_overwritten_by_the_next(backend):
    text = words(5)
    first = backend.logits(pictures(1), text)
    kept = first.copy()
    backend.logits(pictures(1), text)
    np.testing.assert_array_equal(first, kept)


def test_a_batch_beyond_the_engines_goes_through_in_pieces(backend, reference):
    images, text = pictures(9, 192, 192), words(4)
    np.testing.assert_allclose(
        backend.logits(images, text), reference.logits(images, text), atol=COSINE_TOLERANCE
    )


def test_an_engine_of_one_batch_size_and_many_classes_pads(machine, reference, tmp_path):
    options = Options(batch=(4, 4, 4), classes=(8, 8, 8), input_size=(224, 192))
    folder = machine.compile(tmp_path / "lite", options)
    images, text = pictures(5, 224, 192), words(3)
    with open_backend(Bundle.open(folder), engine_files(folder)[0]) as backend:
        assert backend.fixed_size == (224, 192)
        for _ in range(3):
            np.testing.assert_allclose(
                backend.logits(images, text), reference.logits(images, text), atol=COSINE_TOLERANCE
            )
        assert backend.features(images).shape == (5, 7, 6, 384)
        with pytest.raises(BackendError, match="at most 8"):
            backend.logits(images, words(9))
        with pytest.raises(BackendError, match="this engine takes"):
            backend.logits(pictures(1), text)


def test_words_swap_while_pictures_are_under_way(compiled, photo):
    with Segmenter.from_pretrained(compiled, backend="tensorrt", classes=["cat"]) as segmenter:
        small = photo[::2, ::2]
        sets = [["cat", "sofa"], ["grass"], ["sky", "road", "cat"]]
        expected = {}
        for names in sets:
            segmenter.set_classes(names)
            expected[tuple(names)] = segmenter.predict(small).labels
        stop = threading.Event()

        def swap():
            while not stop.is_set():
                for names in sets:
                    segmenter.set_classes(names)

        swapper = threading.Thread(target=swap)
        swapper.start()
        try:
            with ThreadPoolExecutor(4) as pool:
                results = list(pool.map(segmenter.predict, [small] * 30))
        finally:
            stop.set()
            swapper.join()
        for result in results:
            # A replayed graph may round otherwise than the first run; borders may move by a pixel.
            assert (result.labels == expected[tuple(result.names)]).mean() > 0.99


@pytest.mark.parametrize("close", [True, False])
def test_memory_comes_back(machine, compiled, close):
    """Also when nobody calls close."""
    bundle = Bundle.open(compiled)

    def load_and_run() -> int:
        backend = open_backend(bundle, "tensorrt")
        backend.logits(pictures(1), words(5))
        backend.logits(pictures(1), words(6))
        if close:
            backend.close()
        del backend
        gc.collect()
        return machine.free_memory()

    first = load_and_run()  # CUDA keeps what its own libraries need.
    for _ in range(3):
        last = load_and_run()
    assert first - last < (16 << 20 if machine.cuda is None else 1)


def test_a_closed_engine_says_so(compiled):
    backend = open_backend(Bundle.open(compiled), "tensorrt")
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.features(pictures(1))


def test_a_gpu_that_is_not_there_is_refused(compiled):
    with pytest.raises(BackendUnavailableError, match="gpu:99"):
        open_backend(Bundle.open(compiled), "tensorrt", "gpu:99")


def test_an_engine_for_another_gpu_is_refused(compiled, tmp_path):
    folder = Path(shutil.copytree(compiled, tmp_path / "lite"))
    (plan,) = engine_files(folder)
    sidecar = plan.with_suffix(".json")
    fields = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps(fields | {"compute_capability": "99.0"}))
    with pytest.raises(BackendError, match=r"compute capability is .*; .* 99\.0"):
        open_backend(Bundle.open(folder), "tensorrt")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["onnx", "onnx-cuda", "onnx-tensorrt"])
def test_onnxruntime_on_the_gpu(lite, reference, name):
    try:
        backend = open_backend(lite, name, "gpu")
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    images, text = pictures(2), words(5)
    with backend:
        np.testing.assert_allclose(
            backend.logits(images, text), reference.logits(images, text), atol=COSINE_TOLERANCE
        )


@pytest.mark.gpu
@pytest.mark.parametrize("refine", ["off", "edges"])
def test_labels_by_onnxruntime_on_the_gpu(photo, refine):
    options = {"classes": ["cat", "sofa", "grass", "wall", "face"], "refine": refine}
    try:
        gpu = Segmenter.from_pretrained("pixelclip-lite", backend="onnx-cuda", **options)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with gpu, Segmenter.from_pretrained("pixelclip-lite", backend="onnx", device="cpu", **options) as cpu:
        assert (gpu.predict(photo).labels == cpu.predict(photo).labels).mean() > 0.99


# These tests need the GPU in host memory.


@pytest.fixture
def host(machine):
    """The GPU in host memory, with fresh counts."""
    if machine.cuda is None:
        pytest.skip("a real GPU does not count")
    machine.cuda.counts.clear()
    return machine.cuda


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")
@pytest.mark.parametrize("refine", ["off", "edges"])
def test_frames_and_labels_stay_on_the_gpu(machine, compiled, host, photo, refine):
    """Frames of one size after each other, words that change, and a graph from the second frame on."""
    frames = [photo[::2, ::2].copy(), photo[1::2, ::2, ::-1].copy()]
    sets = [["cat", "sofa", "grass"], ["dog", "sky"]]
    with (
        Segmenter.from_pretrained(compiled, backend="onnx", device="cpu", refine=refine) as cpu,
        Segmenter.from_pretrained(compiled, backend="tensorrt", refine=refine) as gpu,
    ):
        stream = host.cudaStreamCreateWithFlags(1)[1]
        results, expected = [], []
        for frame, names in zip(frames * 2, [sets[0], *sets, sets[0]], strict=True):
            expected.append(cpu.with_classes(names).predict(frame))
            gpu.set_classes(names)
            results.append(gpu.predict(DlpackArray(host, frame, stream=stream)))
        assert host.counts["label"] == 4
        for found, wanted in zip(results, expected, strict=True):
            assert found.labels_on_device is not None
            assert (found.labels == wanted.labels).mean() > 0.999
            np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
        if machine.flavor == "tensorrt":
            assert (host.counts["capture"], host.counts["replay"]) == (1, 3)


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")
def test_frames_of_several_videos_go_through_the_engine_together(compiled, host, photo):
    words = ["cat", "sofa", "grass"]
    frames = [photo[i : i + 96, i : i + 128].copy() for i in range(4)]
    smoothers = [[Smoother(0.3) for _ in frames] for _ in range(2)]
    with (
        Segmenter.from_pretrained(compiled, backend="onnx", device="cpu", classes=words) as cpu,
        Segmenter.from_pretrained(compiled, backend="tensorrt", classes=words) as gpu,
    ):
        for i in range(2):
            calls, expected = [], []
            for frame, ours, theirs in zip(frames, *smoothers, strict=True):
                call = functools.partial(gpu.predict, frame, smoother=ours, time_s=i / 30)
                calls.append(call)
                expected.append(cpu.predict(frame, smoother=theirs, time_s=i / 30))
            for found, wanted in zip(at_once(gpu, calls), expected, strict=True):
                assert (found.result().labels == wanted.labels).mean() > 0.999
                np.testing.assert_allclose(found.result().logits, wanted.logits, atol=1e-5)
        runs = host.counts["enqueue"], host.counts["replay"]
        assert runs == ((2, 0) if gpu._backend.info.flavor == "tensorrt-rtx" else (2, 1))  # One is recorded.


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")
def test_three_sizes_keep_their_graphs(machine, compiled, host):
    """Each has one for a frame and one for four."""
    if machine.flavor != "tensorrt":
        pytest.skip("TensorRT-RTX records graphs by itself")
    frames = [np.zeros((*size, 3), np.uint8) for size in ((192, 256), (256, 192), (224, 224))]
    with Segmenter.from_pretrained(compiled, backend="tensorrt", classes="cat, sofa", refine="off") as gpu:
        for _ in range(2):
            for frame in frames:
                gpu.predict(frame)
                for found in at_once(gpu, [functools.partial(gpu.predict, frame)] * 4):
                    assert found.result().labels.size
        assert (host.counts["capture"], host.counts["replay"]) == (6, 6)


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler (g++ or clang++)")
def test_an_engine_that_is_dropped_ends_after_its_work(compiled, host, monkeypatch):
    """Nobody waits for the frame any more: its caller was interrupted."""
    before = set(host.memory)
    segmenter = Segmenter.from_pretrained(compiled, backend="tensorrt", classes="cat, sofa", refine="off")
    frame = np.zeros((96, 128, 3), np.uint8)
    segmenter.predict(frame)
    encoder, encode = segmenter._backend._encoder, _Session.encode
    inside, go, ended = threading.Event(), threading.Event(), []

    def slow(session, *given):
        inside.set()
        go.wait(60)
        encoded = encode(session, *given)
        ended.append(session._engine is not None)
        return encoded

    def interrupted(_: Started) -> None:
        assert inside.wait(60)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_Session, "encode", slow)
        patch.setattr(Started, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            segmenter.predict(frame)
        del segmenter
        threading.Timer(0.3, go.set).start()
        gc.collect()
    for _ in range(600):
        if encoder._ended and set(host.memory) == before:
            break
        time.sleep(0.1)
    assert ended == [True]
    assert set(host.memory) == before


def test_unchanged_words_are_not_sent_again(compiled, host):
    text = words(5)
    with open_backend(Bundle.open(compiled), "tensorrt") as backend:
        before = host.counts["copy 1"]
        for _ in range(3):
            backend.logits(pictures(1), text)
        assert host.counts["copy 1"] - before == 3 + 1  # Pictures, and the words once.
        backend.logits(pictures(1), words(5))
        assert host.counts["copy 1"] - before == 4 + 2


def test_a_shape_is_captured_once_and_then_replayed(machine, compiled, host):
    with open_backend(Bundle.open(compiled), "tensorrt") as backend:
        for classes in (5, 6, 5, 6, 5):
            backend.logits(pictures(1), words(classes))
    if machine.flavor == "tensorrt":
        assert (host.counts["capture"], host.counts["replay"]) == (2, 3)
    else:  # TensorRT-RTX does it by itself.
        assert (host.counts["capture"], host.counts["enqueue"]) == (0, 5)


def test_the_shapes_used_last_are_kept(machine, compiled, host, monkeypatch):
    monkeypatch.setattr("pixelclip_sdk.backends.tensorrt._SHAPES_KEPT", 2)
    with open_backend(Bundle.open(compiled), "tensorrt") as backend:
        for classes in (5, 6, 5, 7, 5):
            backend.logits(pictures(1), words(classes))
        assert len(backend._session._executions) == (2 if machine.flavor == "tensorrt" else 1)
    if machine.flavor == "tensorrt":  # The context for 6 classes was closed for 7.
        assert (host.counts["capture"], host.counts["replay"]) == (3, 2)


def test_no_graph_is_no_error(compiled, reference, host, monkeypatch):
    monkeypatch.setattr(host, "refuse_capture", True)
    images, text = pictures(1), words(5)
    with open_backend(Bundle.open(compiled), "tensorrt") as backend:
        for _ in range(3):
            np.testing.assert_allclose(
                backend.logits(images, text), reference.logits(images, text), atol=1e-4
            )
    assert host.counts["replay"] == 0


def test_too_little_gpu_memory_is_an_error_and_leaks_nothing(machine, compiled, host, monkeypatch):
    before, graphs = machine.free_memory(), set(host.graphs)
    monkeypatch.setattr(host, "room", 1 << 20)
    with pytest.raises(BackendError, match=r"cudaMalloc failed: out of memory \(CUDA error 2\)"):
        open_backend(Bundle.open(compiled), "tensorrt")
    monkeypatch.undo()
    assert machine.free_memory() == before
    assert set(host.graphs) == graphs


def test_words_whose_copy_failed_are_sent_again(compiled, reference, host):
    images, text = pictures(1), words(5)
    with open_backend(Bundle.open(compiled), "tensorrt") as backend:
        host.lost = True
        with pytest.raises(BackendError, match="cudaStreamSynchronize failed"):
            backend.logits(images, text)
        np.testing.assert_allclose(backend.logits(images, text), reference.logits(images, text), atol=1e-4)


def test_a_failure_of_the_first_copy_is_noticed_when_the_engine_loads(compiled, host, machine):
    before = machine.free_memory()
    host.lost = True
    with pytest.raises(BackendError, match="cudaStreamSynchronize failed"):
        open_backend(Bundle.open(compiled), "tensorrt")
    gc.collect()
    assert machine.free_memory() == before


def test_closing_waits_for_the_call_in_progress(compiled, reference, host, machine, monkeypatch):
    images, text = pictures(1), words(5)
    backend = open_backend(Bundle.open(compiled), "tensorrt")
    backend.logits(images, text)
    used = machine.free_memory()
    running, go_on = threading.Event(), threading.Event()

    def wait():
        running.set()
        assert go_on.wait(10)

    monkeypatch.setattr(host, "before_synchronize", wait)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(backend.logits, images, text)
        assert running.wait(10)
        closing = pool.submit(backend.close)
        with pytest.raises(TimeoutError):
            closing.result(0.2)
        assert machine.free_memory() == used
        go_on.set()
        np.testing.assert_allclose(call.result(10), reference.logits(images, text), atol=1e-4)
        closing.result(10)
    assert machine.free_memory() > used


def test_all_contexts_go_before_the_memory_if_one_graph_cannot_be_destroyed(machine, compiled, host):
    backend = open_backend(Bundle.open(compiled), "tensorrt")
    for classes in (5, 6, 7):
        backend.logits(pictures(1), words(classes))
    executions = list(backend._session._executions.values())
    assert len(executions) == (3 if machine.flavor == "tensorrt" else 1)
    before, graphs = machine.free_memory(), len(host.graphs)
    host.kept_graphs = 1
    backend.close()
    kept, host.kept_graphs = 1 - host.kept_graphs, 0
    assert [execution._context for execution in executions] == [None] * len(executions)
    assert not backend._session._executions
    assert machine.free_memory() > before
    assert kept == (machine.flavor == "tensorrt")  # TensorRT-RTX has graphs of its own.
    assert len(host.graphs) == graphs - 2 * kept


@pytest.mark.usefixtures("host")
def test_auto_loads_no_engine_of_another_machine(compiled, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path))
    with Segmenter.from_pretrained(compiled) as segmenter:
        assert segmenter.backend == "onnx"
    assert "was not compiled on this machine" in caplog.text
    with Segmenter.from_pretrained(compiled, backend="tensorrt") as segmenter:
        assert segmenter.backend == "tensorrt"
    with Segmenter.from_pretrained(compiled) as segmenter:
        assert segmenter.backend == "onnx"  # Only compiling records an engine.
    (plan,) = engine_files(compiled)
    trust(sha256(plan))
    with Segmenter.from_pretrained(compiled) as segmenter:
        assert segmenter.backend == "tensorrt"


def sidecar(folder: Path) -> dict:
    (plan,) = engine_files(folder)
    return json.loads(plan.with_suffix(".json").read_text())


def forget_verification(folder: Path, **verification) -> Path:
    """A sidecar as it is written where no GPU is."""
    (plan,) = engine_files(folder)
    plan.with_suffix(".json").write_text(json.dumps(sidecar(folder) | {"verification": verification}))
    return folder


@pytest.fixture
def copied(compiled, tmp_path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "lite"))


@pytest.fixture
def wrong_labels(host, monkeypatch) -> None:  # noqa: ARG001 (it skips without one)
    """The engine computes, but the classes are in another order."""
    run = HostContext.compute

    def shuffled(self, shapes):
        run(self, shapes)
        cuda, shape = self.engine.cuda, output_shape("logits", shapes)
        logits = cuda.at(self.addresses["logits"], 4 * math.prod(shape), "device").view(np.float32)
        logits.reshape(shape)[:] = logits.reshape(shape)[:, ::-1].copy()

    monkeypatch.setattr(HostContext, "compute", shuffled)


def test_what_is_compiled_beside_a_gpu_was_compared(compiled):
    report = sidecar(compiled)["verification"]
    assert report["status"] == "passed"
    assert report["label_agreement"] > 0.99
    assert (report["photos"], report["words"], report["gate"]) == (7, 20, 0.98)


@pytest.mark.usefixtures("wrong_labels")
def test_an_engine_with_other_labels_is_not_written(lite, tmp_path):
    """As an engine of half precision may be."""
    with pytest.raises(BackendError, match=r"of the pixels the label that the ONNX file gives; expected 98"):
        compile_engine(lite, "tensorrt-rtx", tmp_path / "engines", Options())
    assert not (tmp_path / "engines").exists()


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("before", [{}, {"status": "not run", "reason": "no GPU"}])
def test_the_first_load_compares_and_the_sidecar_keeps_it(copied, caplog, before):
    forget_verification(copied, **before)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            Segmenter.from_pretrained(copied, backend="tensorrt").close()
    assert caplog.text.count("with the ONNX file, once") == 1
    report = sidecar(copied)["verification"]
    assert (report["status"], report["photos"], report["compute_capability"]) == ("passed", 4, "8.6")
    forget_verification(copied, **report | {"compute_capability": "12.0"})  # It passed on another GPU.
    with caplog.at_level(logging.INFO):
        Segmenter.from_pretrained(copied, backend="tensorrt").close()
    assert caplog.text.count("with the ONNX file, once") == 2


@pytest.mark.usefixtures("host")
def test_where_the_sidecar_cannot_be_written_the_cache_keeps_it(copied, caplog, tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / "cache"))
    forget_verification(copied)
    write = engine_check.atomic_write

    def refuse(path):
        if path.suffix == ".json" and path.parent.name == "engines":
            raise OutputError("read-only file system")
        return write(path)

    monkeypatch.setattr(engine_check, "atomic_write", refuse)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            Segmenter.from_pretrained(copied, backend="tensorrt").close()
    assert caplog.text.count("with the ONNX file, once") == 1
    assert sidecar(copied)["verification"] == {}
    (kept,) = (tmp_path / "cache" / "compared-engines").iterdir()
    assert json.loads(kept.read_text())["status"] == "passed"


@pytest.mark.usefixtures("wrong_labels")
def test_an_engine_with_other_labels_is_refused_unless_told_otherwise(copied, machine, caplog):
    forget_verification(copied)
    before = machine.free_memory()
    with pytest.raises(BackendError, match="of the pixels the label that the ONNX file gives"):
        Segmenter.from_pretrained(copied, backend="tensorrt")
    gc.collect()
    assert machine.free_memory() == before
    with Segmenter.from_pretrained(copied) as segmenter:
        assert segmenter.backend == "onnx"
    assert "of the pixels the label that the ONNX file gives" in caplog.text
    with Segmenter.from_pretrained(copied, backend="tensorrt", verify_engine=False) as segmenter:
        assert segmenter.backend == "tensorrt"
    assert sidecar(copied)["verification"] == {}
