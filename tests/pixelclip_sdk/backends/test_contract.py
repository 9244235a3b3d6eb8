"""What every engine that reads the ONNX file of a bundle must do; others are in `tests/export/tensorrt`."""

import dataclasses
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from pixelclip_sdk import Backend, BackendError, BackendUnavailableError, Segmenter
from pixelclip_sdk.backends import onnx, openvino
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.backends.openvino import OpenVinoBackend
from pixelclip_sdk.models import find_bundle

COMMON = {"embedding_dim": 384, "multiple": 32}


@dataclasses.dataclass
class Engine:
    """An engine under test: its name as `backend=`, its module and its class."""

    name: str
    module: object
    load: Callable[..., Backend]


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def engine(request) -> Engine:
    if request.param == "onnx":
        return Engine("onnx", onnx, OnnxBackend)
    pytest.importorskip("openvino")
    return Engine("openvino", openvino, OpenVinoBackend)


@pytest.fixture(scope="module")
def encoder():
    return find_bundle("pixelclip-lite").file("image_encoder.onnx")


@pytest.fixture(scope="module")
def backend(engine, encoder):
    with engine.load(encoder, **COMMON) as backend:
        yield backend


@pytest.fixture(scope="module")
def reference(encoder):
    with OnnxBackend(encoder, **COMMON) as reference:
        yield reference


def text(count, width=384):
    rows = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_shapes_follow_the_contract(backend):
    images = np.zeros((2, 64, 96, 3), np.uint8)
    bundle = find_bundle("pixelclip-lite")
    stride = bundle.input.height // bundle.grid[0]
    assert backend.logits(images, text(5)).shape == (2, 5, 64 // stride, 96 // stride)
    assert backend.features(images).shape == (2, 64 // stride, 96 // stride, backend.embedding_dim)


def test_sizes_batches_and_words_change_from_call_to_call(backend, reference, photo):
    for count, height, width, words in [(1, 64, 96, 3), (2, 96, 64, 700), (1, 64, 96, 1), (1, 64, 96, 3)]:
        images = np.stack([photo[:height, i : width + i] for i in range(count)])
        images.flags.writeable = False
        for array, expected in (
            (backend.logits(images, text(words)), reference.logits(images, text(words))),
            (backend.features(images), reference.features(images)),
        ):
            np.testing.assert_allclose(array, expected, atol=1e-4)


def test_arrays_that_are_not_contiguous_are_taken(backend, reference, photo):
    images, words = photo[None, 128:0:-1, 192:0:-2], text(6, 768)[::2, ::2]
    np.testing.assert_allclose(backend.logits(images, words), reference.logits(images, words), atol=1e-4)


def test_a_result_is_not_overwritten_by_the_next(backend, photo):
    first = backend.logits(photo[None, :64, :96], text(3))
    kept = first.copy()
    backend.logits(photo[None, 64:128, :96], text(3))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((1, 64, 64, 3), np.float32), "float32"),
        (np.zeros((64, 64, 3), np.uint8), "expected uint8"),
        (np.zeros((1, 65, 64, 3), np.uint8), "multiples of"),
        (np.zeros((0, 64, 64, 3), np.uint8), "expected uint8"),
    ],
)
def test_wrong_images_are_refused(backend, images, said):
    with pytest.raises(BackendError, match=said):
        backend.logits(images, text(2))


@pytest.mark.parametrize("shape", [(2, 7), (0, 384), (384,)])
def test_wrong_texts_are_refused(backend, shape):
    with pytest.raises(BackendError, match="expected float32"):
        backend.logits(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(shape, np.float32))


def test_a_file_that_is_no_graph_is_refused(engine, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="cannot load"):
        engine.load(tmp_path / "bad.onnx", **COMMON)


def test_a_fixed_size_is_enforced(engine, encoder):
    with (
        engine.load(encoder, **COMMON, fixed_size=(64, 64)) as backend,
        pytest.raises(BackendError, match="this engine takes"),
    ):
        backend.features(np.zeros((1, 64, 96, 3), np.uint8))


def test_a_fixed_batch_size_is_padded_and_split(engine, encoder, reference, photo):
    images = np.stack([photo[i : 64 + i, :96] for i in range(5)])
    with engine.load(encoder, **COMMON, batch=2) as backend:
        for part in (images, images[:1], images[:2]):
            expected = reference.logits(part, text(3))
            np.testing.assert_allclose(backend.logits(part, text(3)), expected, atol=1e-4)


@pytest.mark.parametrize("threads", [0, -1, 1025, "2"])
def test_a_wrong_number_of_threads_is_refused(engine, encoder, threads):
    with pytest.raises(BackendError, match="expected 1 to 1024"):
        engine.load(encoder, **COMMON, threads=threads)


def test_the_threads_that_were_asked_for_compute(engine, encoder):
    with engine.load(encoder, **COMMON, threads=1) as backend:
        assert backend.description.endswith(", 1 threads")
        if engine.name == "openvino":
            assert backend._compiled.get_property("INFERENCE_NUM_THREADS") == 1


def test_many_threads_call_one_engine(backend, reference, photo):
    pictures = [photo[None, i : 64 + i, :96] for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda picture: backend.logits(picture, text(3)), pictures))
    for picture, result in zip(pictures, results, strict=True):
        np.testing.assert_allclose(result, reference.logits(picture, text(3)), atol=1e-4)


def test_a_closed_engine_says_so(engine, encoder):
    backend = engine.load(encoder, **COMMON)
    backend.close()
    backend.close()
    for closed in (lambda: backend.features(np.zeros((1, 64, 64, 3), np.uint8)), lambda: backend.shared(2)):
        with pytest.raises(BackendError, match="closed"):
            closed()


@pytest.fixture
def on_cores(engine, encoder, monkeypatch):
    def on(count, **options):
        monkeypatch.setattr(engine.module, "default_threads", lambda: count)
        return engine.load(encoder, **COMMON, **options)

    return on


def test_calls_at_the_same_time_divide_the_cores(on_cores, photo):
    with on_cores(4) as backend:
        shared = backend.shared(2)
        assert shared.description.endswith(", 2 threads")
        assert backend.shared(2) is shared
        assert backend.shared(1) is backend
        image, words = photo[None, :64, :96], text(3)
        np.testing.assert_allclose(shared.logits(image, words), backend.logits(image, words), atol=1e-4)
    for closed in (lambda: shared.logits(image, words), lambda: backend.shared(2)):
        with pytest.raises(BackendError, match="closed"):
            closed()


def test_one_core_and_threads_that_were_asked_for_stay(on_cores):
    with on_cores(1) as alone:
        assert alone.shared(2) is alone
    with on_cores(4, threads=2) as asked:
        assert asked.shared(2) is asked


def test_a_file_that_was_replaced_is_not_loaded_a_second_time(on_cores, engine, encoder, tmp_path):
    copy = tmp_path / "encoder.onnx"
    copy.write_bytes(encoder.read_bytes())
    with on_cores(4) as _, engine.load(copy, **COMMON) as backend:
        copy.write_bytes(encoder.read_bytes() + b"\x08\x08")  # The same model.
        with pytest.raises(BackendError, match="not the file that was loaded"):
            backend.shared(2)


def test_closing_waits_for_an_engine_that_is_being_loaded(engine, on_cores, monkeypatch):
    """Otherwise that engine would stay open."""
    backend = on_cores(4)
    loading, go_on = threading.Event(), threading.Event()
    start = {"onnx": "create_session", "openvino": "_compile"}[engine.name]
    load = getattr(engine.module, start)

    def slow(*arguments, **options):
        loading.set()
        assert go_on.wait(10)
        return load(*arguments, **options)

    monkeypatch.setattr(engine.module, start, slow)
    with ThreadPoolExecutor(2) as pool:
        sharing = pool.submit(backend.shared, 2)
        assert loading.wait(10)
        closing = pool.submit(backend.close)
        with pytest.raises(TimeoutError):
            closing.result(0.2)
        go_on.set()
        closing.result(10)
        with pytest.raises(BackendError, match="closed"):
            sharing.result(10).features(np.zeros((1, 64, 64, 3), np.uint8))


def external_model(location: str) -> bytes:
    """An ONNX model whose one tensor is 64 bytes in the file `location`, written without the package onnx.

    The fields are numbered as in onnx.proto.
    """

    def field(number: int, content: bytes | int) -> bytes:
        if isinstance(content, int):
            return bytes([number << 3, content])
        length = len(content)
        size = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
        return bytes([number << 3 | 2]) + size + content

    def pair(key: bytes, value: bytes) -> bytes:
        return field(13, field(1, key) + field(2, value))

    def value(name: bytes) -> bytes:
        shape = b"".join(field(1, field(1, size)) for size in (4, 4))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    stored = pair(b"location", location.encode()) + pair(b"length", b"64")
    tensor = field(1, 4) + field(1, 4) + field(2, 1) + field(8, b"w") + stored + field(14, 1)
    node = field(1, b"x") + field(1, b"w") + field(2, b"y") + field(4, b"MatMul")
    graph = field(1, node) + field(2, b"g") + field(5, tensor) + field(11, value(b"x"))
    graph += field(12, value(b"y"))
    return field(1, 8) + field(7, graph) + field(8, field(2, 17))


@pytest.mark.parametrize("location", ["weights.bin", "sub/../weights.bin", "../weights.bin", "absolute"])
def test_tensors_in_other_files_are_refused(engine, location, tmp_path, monkeypatch):
    """Such a file is not in the manifest, so whoever changes it changes the model."""
    folder = tmp_path / "bundle"
    (folder / "sub").mkdir(parents=True)
    monkeypatch.chdir(folder)
    for place in (folder, tmp_path):
        (place / "weights.bin").write_bytes(np.eye(4, dtype=np.float32).tobytes())
    model = folder / "model.onnx"
    model.write_bytes(external_model("weights.bin"))
    onnxruntime.InferenceSession(str(model))  # The model is sound; ONNX Runtime by itself loads it.
    model.write_bytes(external_model(str(tmp_path / "weights.bin") if location == "absolute" else location))
    with pytest.raises(BackendError, match="keeps tensors in other files; expected all of them in the one"):
        engine.load(model, **COMMON)


def test_a_run_that_takes_too_long_is_ended(engine, encoder):
    with engine.load(encoder, **COMMON, deadline_s=0.02) as backend:
        with pytest.raises(BackendError, match=r"took longer than deadline_s=0.02 on images \(4, 1024"):
            backend.features(np.zeros((4, 1024, 1024, 3), np.uint8))
        backend._deadline_s = 60
        assert backend.features(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 1, 1, 384)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_and_ends(engine, encoder):
    with engine.load(encoder, **COMMON) as backend:
        backend.features(np.zeros((1, 32, 32, 3), np.uint8))
        child = os.fork()
        if child == 0:
            try:
                backend.features(np.zeros((1, 32, 32, 3), np.uint8))
            except BackendError as error:
                os._exit(42 if "os.fork()" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_an_engine_is_chosen_by_its_name(engine, photo):
    with Segmenter.from_pretrained(backend=engine.name, device="cpu", classes=["cat", "sofa"]) as segmenter:
        assert segmenter.backend == engine.name
        assert (segmenter.predict(photo).labels == 0).mean() > 0.5


def test_a_gpu_that_is_not_there_is_an_error_not_a_slow_cpu(engine):
    with pytest.raises(BackendUnavailableError, match=r"(?i)gpu"):  # No machine has so many.
        open_backend(find_bundle("pixelclip-lite"), engine.name, "gpu:99")
