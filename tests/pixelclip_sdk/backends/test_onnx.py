import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from pixelclip_sdk import BackendError, BackendUnavailableError
from pixelclip_sdk.backends import onnx
from pixelclip_sdk.backends.onnx import OnnxBackend, create_session, gpu_devices
from pixelclip_sdk.models import find_bundle


@pytest.fixture(scope="module")
def backend():
    bundle = find_bundle("pixelclip-lite")
    with OnnxBackend(
        bundle.file("image_encoder.onnx"), embedding_dim=bundle.embedding_dim, multiple=bundle.input.multiple
    ) as backend:
        yield backend


def text(count, width):
    rows = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_shapes_follow_the_contract(backend):
    images = np.zeros((2, 64, 96, 3), np.uint8)
    bundle = find_bundle("pixelclip-lite")
    stride = bundle.input.height // bundle.grid[0]
    assert backend.logits(images, text(5, backend.embedding_dim)).shape == (2, 5, 64 // stride, 96 // stride)
    assert backend.features(images).shape == (2, 64 // stride, 96 // stride, backend.embedding_dim)


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
        backend.logits(images, text(2, backend.embedding_dim))


@pytest.mark.parametrize("shape", [(2, 7), (0, 384), (384,)])
def test_wrong_texts_are_refused(backend, shape):
    with pytest.raises(BackendError, match="expected float32"):
        backend.logits(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(shape, np.float32))


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="cannot load"):
        create_session(tmp_path / "bad.onnx")


def test_a_fixed_size_is_enforced():
    bundle = find_bundle("pixelclip-lite")
    backend = OnnxBackend(
        bundle.file("image_encoder.onnx"),
        embedding_dim=bundle.embedding_dim,
        multiple=32,
        fixed_size=(64, 64),
    )
    with pytest.raises(BackendError, match="this engine takes"):
        backend.features(np.zeros((1, 64, 96, 3), np.uint8))


def test_a_gpu_that_is_not_there_is_an_error_not_a_slow_cpu():
    try:
        gpu_devices()
    except BackendUnavailableError:
        bundle = find_bundle("pixelclip-lite")
        with pytest.raises(BackendUnavailableError, match="cpu"):
            create_session(bundle.file("image_encoder.onnx"), device="gpu")
    else:
        pytest.skip("this machine has a GPU that onnxruntime can use")


def test_a_provider_that_leaves_the_work_to_the_cpu_is_an_error(monkeypatch):
    """ONNX Runtime does so node by node, with its fallbacks off; Azure's provider computes nothing."""
    other = "AzureExecutionProvider"
    if other not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no second provider")
    monkeypatch.setitem(onnx.GPU_PROVIDERS, "cuda", other)
    file = find_bundle("pixelclip-lite").file("image_encoder.onnx")
    with pytest.raises(BackendUnavailableError, match=f"asked for {other}, which leaves .*Conv.* to the CPU"):
        create_session(file, device="gpu", provider="cuda")


@pytest.mark.parametrize("threads", [0, -1])
def test_a_wrong_number_of_threads_is_refused(threads, tmp_path):
    with pytest.raises(BackendError, match="expected 1 to 1024"):
        create_session(tmp_path / "any.onnx", threads=threads)


@pytest.fixture
def on_cores(monkeypatch):
    def on(count):
        monkeypatch.setattr(onnx, "default_threads", lambda: count)
        return OnnxBackend(
            find_bundle("pixelclip-lite").file("image_encoder.onnx"), embedding_dim=384, multiple=32
        )

    return on


def test_calls_at_the_same_time_divide_the_cores(on_cores, photo):
    with on_cores(4) as backend:
        shared = backend.shared(2)
        assert shared.description == "onnxruntime on cpu, 2 threads"
        assert backend.shared(2) is shared
        assert backend.shared(1) is backend
        image, words = photo[None, :64, :96], text(3, 384)
        np.testing.assert_allclose(shared.logits(image, words), backend.logits(image, words), atol=1e-6)
    for closed in (lambda: shared.logits(image, words), lambda: backend.shared(2)):
        with pytest.raises(BackendError, match="closed"):
            closed()


def test_one_core_and_threads_that_were_asked_for_stay(on_cores):
    with on_cores(1) as alone:
        assert alone.shared(2) is alone
    with OnnxBackend(
        find_bundle("pixelclip-lite").file("image_encoder.onnx"), embedding_dim=384, multiple=32, threads=2
    ) as asked:
        assert asked.shared(2) is asked


def test_closing_waits_for_a_session_that_is_being_loaded(on_cores, monkeypatch):
    """Otherwise that session would stay open."""
    backend = on_cores(4)
    loading, go_on = threading.Event(), threading.Event()
    load = backend._load_again

    def slow(**options):
        loading.set()
        assert go_on.wait(10)
        return load(**options)

    monkeypatch.setattr(backend, "_load_again", slow)
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
        return bytes([number << 3 | 2, len(content)]) + content

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
    return (
        field(1, 8)
        + field(7, graph)[:1]
        + bytes([len(graph) & 0x7F | 0x80, len(graph) >> 7])
        + graph
        + (field(8, field(2, 17)))
    )


@pytest.mark.parametrize("location", ["weights.bin", "sub/../weights.bin", "../weights.bin", "absolute"])
def test_tensors_in_other_files_are_refused(location, tmp_path, monkeypatch):
    """Such a file is not in the manifest, so whoever changes it changes the model."""
    import onnxruntime

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
        create_session(model)
