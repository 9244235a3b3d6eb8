"""Frames and labels on a GPU in host memory, against the CPU's path. `host_gpu.cuda` says what it checks."""

import gc
import logging
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pixelclip_sdk import BackendError, ImageError, Vocabulary
from pixelclip_sdk.image import load_image


def same(found, expected) -> None:
    assert (found.labels == expected.labels).mean() > 0.999
    assert found.labels.dtype == expected.labels.dtype
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-3)
    np.testing.assert_array_equal(found.image, expected.image)
    assert found.names == expected.names
    assert found.covered == expected.covered


def test_a_frame_on_the_host(gpu, cpu, photo):
    segmenter = gpu.load()
    result = segmenter.predict(photo)
    assert isinstance(result.__dict__["labels"], np.ndarray)
    same(result, cpu.predict(photo))
    assert gpu.cuda.counts["label"] == 1
    assert set(result.speed) == {"decode", "preprocess", "inference", "refine", "postprocess", "total"}
    same(segmenter.predict(photo, threshold=0.1), cpu.predict(photo, threshold=0.1))


def test_labels_along_edges_stay_on_the_gpu(gpu, cpu, frames, arrays, local):
    """They are the model's default. `test_edges` says how close they come."""
    segmenter, cpu = gpu.load(refine="auto", classes=local), cpu.with_classes(local)
    for frame in frames[:2]:
        for threshold in (None, 0.1):
            expected = cpu.predict(frame, refine="edges", threshold=threshold)
            found = segmenter.predict(frame, threshold=threshold)
            on_gpu = segmenter.predict(arrays.interface(gpu.cuda, frame), threshold=threshold)
            for result in (found, on_gpu):
                assert result.refine == "edges"
                same(result, expected)
            assert on_gpu.labels_on_device is not None
            off = cpu.predict(frame, refine="off", threshold=threshold)
            assert threshold or (off.labels != expected.labels).mean() > 0.1
            np.testing.assert_array_equal(on_gpu.refined("off").labels, off.labels)


@pytest.mark.parametrize("refine", ["off", "edges"])
@pytest.mark.parametrize("kind", ["interface", "dlpack"])
def test_a_frame_on_the_gpu_waits_for_its_producer(gpu, cpu, frames, arrays, kind, refine, local):
    segmenter, cpu = gpu.load(refine=refine, classes=local), cpu.with_classes(local)
    stream = gpu.cuda.cudaStreamCreateWithFlags(1)[1]
    frame = getattr(arrays, kind)(gpu.cuda, frames[0], stream=stream)
    result = segmenter.predict(frame)
    frame.write(frames[1])  # It was read, so it may be overwritten.
    gpu.cuda.run(stream)
    expected = cpu.predict(frames[0], refine=refine)
    assert (result.labels == expected.labels).mean() > 0.999
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-5)
    assert gpu.cuda.counts["copy 1"] < 60  # Tables and words only.


def test_everything_of_a_result_of_a_frame_on_the_gpu(gpu, cpu, frames, arrays):
    settings = {"background": cpu.embed(["wall", "floor"]), "threshold": 0.05}
    result = gpu.load().predict(arrays.interface(gpu.cuda, frames[2]), **settings)
    expected = cpu.predict(frames[2], **settings)
    same(result, expected)
    assert result.areas() == pytest.approx(expected.areas(), abs=1e-3)
    again = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(again.labels, result.labels)
    assert again.labels_on_device is None
    np.testing.assert_array_equal(result.refined("edges").labels, expected.refined("edges").labels)


def test_labels_stay_on_the_gpu_until_they_are_read(gpu, frames, arrays):
    segmenter = gpu.load()
    frame = arrays.interface(gpu.cuda, frames[0])
    segmenter.predict(frame)
    before = gpu.cuda.counts.get("copy 2", 0)
    result = segmenter.predict(frame)
    assert result.orig_shape == (97, 131)
    assert result.labels_on_device.shape == (97, 131)
    assert result.labels_on_device.device == "gpu:0"
    assert gpu.cuda.counts.get("copy 2", 0) == before
    labels = result.labels
    assert gpu.cuda.counts["copy 2"] == before + 2  # Labels, and whether all logits are numbers.
    assert result.labels is labels


@pytest.mark.parametrize("protocol", ["interface", "dlpack"])
def test_labels_are_read_by_other_libraries(gpu, cpu, frames, arrays, protocol):
    """On their own stream, which waits for ours; the memory is not used again before they have read it."""
    segmenter = gpu.load()
    frame = arrays.interface(gpu.cuda, frames[0])
    stream = gpu.cuda.cudaStreamCreateWithFlags(1)[1]
    labels = segmenter.predict(frame).labels_on_device
    if protocol == "dlpack":
        assert labels.__dlpack_device__() == (2, 0)
        for elsewhere in ({"dl_device": (1, 0)}, {"copy": True}):
            with pytest.raises(BufferError, match=r"for a copy call numpy\(\)"):
                labels.__dlpack__(stream=stream, **elsewhere)
        capsule = labels.__dlpack__(stream=stream, max_version=(1, 0), dl_device=(2, 0), copy=False)
        address = labels._address
    else:
        interface = labels.__cuda_array_interface__
        address, capsule = interface["data"][0], None
        _, event = gpu.cuda.cudaEventCreateWithFlags(0)
        gpu.cuda.cudaEventRecord(event, interface["stream"])
        gpu.cuda.cudaStreamWaitEvent(stream, event, 0)
    copy = np.empty((97, 131), np.uint8)
    memory = gpu.cuda.at(address, copy.size, "device")
    gpu.cuda.start(stream, lambda: np.copyto(copy, memory.reshape(copy.shape)))
    del labels, capsule
    gc.collect()
    later = segmenter.predict(arrays.interface(gpu.cuda, frames[3]))
    np.testing.assert_array_equal(later.labels, cpu.predict(frames[3]).labels)
    gpu.cuda.run(stream)
    np.testing.assert_array_equal(copy, cpu.predict(frames[0]).labels)


@pytest.mark.parametrize("refine", ["off", "edges"])
def test_frames_of_every_layout(gpu, frames, arrays, refine, local):
    segmenter = gpu.load(refine=refine, classes=local)
    frame, expected = frames[1], segmenter.predict(frames[1]).labels
    planes = arrays.interface(gpu.cuda, frame.transpose(2, 0, 1))
    np.testing.assert_array_equal(segmenter.predict(planes).labels, expected)
    bgr = arrays.interface(gpu.cuda, frame[:, :, ::-1])
    np.testing.assert_array_equal(segmenter.predict(bgr, channel_order="bgr").labels, expected)
    pitched = np.zeros((97, 512), np.uint8)
    pitched[:, : 131 * 3] = frame.reshape(97, -1)
    rows = arrays.interface(gpu.cuda, pitched, shape=(97, 131, 3), strides=(512, 3, 1))
    np.testing.assert_array_equal(segmenter.predict(rows).labels, expected)
    np.testing.assert_array_equal(segmenter.predict(rows).image, frame)


def test_a_batch_of_both_kinds(gpu, cpu, frames, arrays):
    segmenter = gpu.load()
    mixed = [frame if i % 2 else arrays.interface(gpu.cuda, frame) for i, frame in enumerate(frames)]
    mixed.append(frames[0][:40])
    for result, expected in zip(
        segmenter.predict_batch(mixed), cpu.predict_batch([*frames, frames[0][:40]]), strict=True
    ):
        same(result, expected)


@pytest.mark.parametrize("refine", ["off", "edges"])
def test_a_stream_of_frames_on_the_gpu(gpu, cpu, frames, arrays, refine, local):
    segmenter, cpu = gpu.load(refine=refine, classes=local), cpu.with_classes(local)
    given = [arrays.interface(gpu.cuda, frame) for frame in frames]
    results = list(segmenter.stream(given))
    assert [result.frame.index for result in results] == list(range(6))
    for result, frame in zip(results, frames, strict=True):
        assert result.labels_on_device is not None
        assert (result.labels == cpu.predict(frame, refine=refine).labels).mean() > 0.999


def test_settings_that_need_the_host_take_the_frame_there(gpu, cpu, frames, arrays):
    segmenter = gpu.load()
    frame = arrays.interface(gpu.cuda, frames[0])
    for settings in ({"min_confidence": 0.3}, {"tiles": 4}):
        found, expected = segmenter.predict(frame, **settings), cpu.predict(frames[0], **settings)
        assert found.labels_on_device is None
        assert (found.labels == expected.labels).mean() > 0.999


def test_other_words_need_no_new_graph(gpu, cpu, frames):
    segmenter = gpu.load()
    segmenter.predict(frames[0])
    rows = len(segmenter._competitors.of(segmenter.vocabulary).embeddings)
    assert (
        33 <= rows <= 61
    )  # With the model's background words: 64 after padding, for all words of this test.
    other = cpu.with_classes(["dog", "sky", "road", "tree"])
    for vocabulary in (other.vocabulary, cpu.vocabulary, other.vocabulary):
        segmenter.set_classes(vocabulary)
        expected = cpu.with_classes(vocabulary).predict(frames[1])
        same(segmenter.predict(frames[1]), expected)
    assert gpu.cuda.counts["capture"] == 1
    assert gpu.cuda.counts["replay"] == 3


@pytest.mark.parametrize("refine", ["off", "edges"])
def test_the_steady_state_allocates_nothing(gpu, frames, arrays, refine):
    segmenter = gpu.load(refine=refine)
    on_gpu = [arrays.interface(gpu.cuda, frame) for frame in frames]
    for given in (frames, on_gpu):
        for frame in given:
            assert segmenter.predict(frame).labels.size
        gc.collect()
        before = {name: n for name, n in gpu.cuda.counts.items() if name.startswith("allocate")}
        for frame in given * 3:
            assert segmenter.predict(frame).labels.size
        after = {name: n for name, n in gpu.cuda.counts.items() if name.startswith("allocate")}
        assert before == after


def test_unused_words_and_many_classes(gpu, cpu, photo):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    many = Vocabulary(
        names=[f"word {i}" for i in range(300)],
        embeddings=rows,
        text_hash=cpu.vocabulary.text_hash,
        unused=(3, 7),
    )
    found, expected = gpu.load(classes=many).predict(photo), cpu.with_classes(many).predict(photo)
    assert found.labels.dtype == np.uint16
    assert not np.isin(found.labels, (3, 7)).any()
    same(found, expected)


def test_threads_share_an_engine(gpu, cpu, frames):
    segmenter = gpu.load()
    expected = [cpu.predict(frame).labels for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(segmenter.predict, frames), expected, strict=True):
                np.testing.assert_array_equal(found.labels, wanted)


def test_two_engines_on_two_gpus(gpu, cpu, frames, arrays):
    first, second = gpu.load(), gpu.load(device="gpu:1")
    np.testing.assert_array_equal(second.predict(frames[0]).labels, cpu.predict(frames[0]).labels)
    frame = arrays.interface(gpu.cuda, frames[0])
    assert first.predict(frame).labels.size
    with pytest.raises(ImageError, match=r"frame is on gpu:0, the model on gpu:1"):
        second.predict(frame)
    assert len({session.stream for session in gpu.onnx.sessions}) == 2


def test_a_tensor_on_another_gpu_than_the_current_one(gpu, cpu, frames, arrays):
    """PyTorch gives a capsule only while the tensor's GPU is the current one of the thread."""
    segmenter = gpu.load(device="gpu:1")
    gpu.cuda.device = 1
    frame = arrays.dlpack(gpu.cuda, frames[0], stream=gpu.cuda.cudaStreamCreateWithFlags(1)[1])
    gpu.cuda.device = 0
    np.testing.assert_array_equal(segmenter.predict(frame).labels, cpu.predict(frames[0]).labels)
    assert gpu.cuda.device == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"typestr": "<f4"}, "got a frame of float32 on a GPU; expected uint8"),
        ({"typestr": "<u2"}, "got a frame of uint16"),
        ({"shape": (97, 131)}, r"shape \(97, 131\) on a GPU; expected \(H, W, 3\)"),
        ({"shape": (97, 131, 4)}, r"shape \(97, 131, 4\)"),
        ({"shape": (0, 131, 3)}, "empty frame"),
        ({"shape": (97, 0, 3)}, "empty frame"),
        ({"strides": (393, 3)}, "shape"),
        ({"data": (4096, False)}, "not in a GPU's memory"),
        ({"data": None}, "__cuda_array_interface__ is damaged"),
        ({"stream": 0}, "stream is 0"),
    ],
)
def test_frames_that_cannot_be_used(gpu, frames, arrays, changes, message):
    segmenter = gpu.load()
    with pytest.raises(ImageError, match=message):
        segmenter.predict(arrays.interface(gpu.cuda, frames[0], **changes))
    assert segmenter.predict(frames[0]).labels.size


def test_freed_memory_is_refused(gpu, frames, arrays):
    segmenter = gpu.load()
    frame = arrays.interface(gpu.cuda, frames[0])
    gpu.cuda.cudaFree(frame.address)
    with pytest.raises(ImageError, match="allocated and not freed"):
        segmenter.predict(frame)


def test_a_model_on_the_cpu_refuses_frames_on_a_gpu(gpu, cpu, frames, arrays):
    with pytest.raises(ImageError, match=r"onnxruntime on cpu.* takes frames on the host"):
        cpu.predict(arrays.interface(gpu.cuda, frames[0]))


def test_a_gpu_without_memory_and_an_engine_that_fails_stay_usable(gpu, cpu, frames):
    segmenter = gpu.load()
    segmenter.predict(frames[0][:32])
    room, gpu.cuda.room = gpu.cuda.room, 1
    with pytest.raises(BackendError, match="out of memory"):
        segmenter.predict(frames[0])
    gpu.cuda.room = room
    gpu.onnx.sessions[0].fails = True
    with pytest.raises(BackendError, match="onnxruntime failed on an image of"):
        segmenter.predict(frames[0])
    gpu.onnx.sessions[0].fails = False
    same(segmenter.predict(frames[0]), cpu.predict(frames[0]))
    gpu.cuda.lost = True
    with pytest.raises(BackendError, match="some error"):
        segmenter.predict(frames[0])
    same(segmenter.predict(frames[0]), cpu.predict(frames[0]))


def test_logits_that_are_no_numbers(gpu, frames, arrays, monkeypatch):
    segmenter = gpu.load()
    compute = type(gpu.onnx.sessions[0])._compute

    def damaged(session, tensors) -> None:
        compute(session, tensors)
        gpu.cuda.at(tensors["logits"][0], 4, "device").view(np.float32)[0] = np.nan

    monkeypatch.setattr(type(gpu.onnx.sessions[0]), "_compute", damaged)
    with pytest.raises(BackendError, match="NaN or infinite"):
        segmenter.predict(frames[0])
    result = segmenter.predict(arrays.interface(gpu.cuda, frames[0]))
    with pytest.raises(BackendError, match="NaN or infinite"):
        _ = result.labels


def test_a_closed_engine(gpu, cpu, frames, arrays):
    segmenter = gpu.load()
    result = segmenter.predict(arrays.interface(gpu.cuda, frames[0]))
    before = len(gpu.cuda.memory)
    segmenter.close()
    assert len(gpu.cuda.memory) < before
    np.testing.assert_array_equal(result.labels, cpu.predict(frames[0]).labels)
    with pytest.raises(BackendError, match="closed"):
        segmenter.predict(frames[0])
    del result
    gc.collect()
    assert {kind for _, _, kind, _ in gpu.cuda.memory.values()} <= {"device"}
    assert len(gpu.cuda.memory) == 1  # The frame of this test.


def test_without_a_compiler_of_kernels_the_cpu_does_the_rest(gpu, cpu, frames, arrays, monkeypatch, caplog):
    from pixelclip_sdk.device import pipeline
    from pixelclip_sdk.errors import BackendUnavailableError

    def missing(_: str) -> bytes:
        raise BackendUnavailableError("NVRTC cannot be loaded")

    monkeypatch.setattr(pipeline, "compiled", missing)
    segmenter = gpu.load()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            found, expected = segmenter.predict(frames[0]), cpu.predict(frames[0])
            np.testing.assert_array_equal(found.labels, expected.labels)
    assert caplog.text.count("labels are made on the CPU") == 1
    with pytest.raises(BackendUnavailableError, match="NVRTC"):
        segmenter.predict(arrays.interface(gpu.cuda, frames[0]))


def test_a_picture_file_goes_through_the_gpu(gpu, cpu, tmp_path, photo):
    from PIL import Image

    Image.fromarray(photo).save(tmp_path / "photo.png")
    same(gpu.load().predict(tmp_path / "photo.png"), cpu.predict(load_image(tmp_path / "photo.png")))
    assert gpu.cuda.counts["resize"] == 1


def test_words_change_while_frames_are_under_way(gpu, cpu, frames, arrays):
    segmenter = gpu.load()
    frame = arrays.interface(gpu.cuda, frames[0])
    other = cpu.with_classes(["dog", "sky", "road"])
    results = []
    for vocabulary in (cpu.vocabulary, other.vocabulary, cpu.vocabulary):
        segmenter.set_classes(vocabulary)
        results.append(segmenter.predict(frame))
    for result, expected in zip(results, (cpu, other, cpu), strict=True):
        np.testing.assert_allclose(result.logits, expected.predict(frames[0]).logits, atol=1e-5)


def test_threads_share_what_the_provider_keeps_for_a_thread(gpu, frames):
    """Threads come and go, as in a server: each would record all graphs again, and leave them behind."""
    segmenter = gpu.load()
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            assert all(result.labels.size for result in pool.map(segmenter.predict, frames))
            assert all(grid.size for grid in pool.map(segmenter.features, frames[:3]))
    (session,) = gpu.onnx.sessions
    assert len(session.threads) == 1
    assert gpu.cuda.counts["capture"] == 1


def test_other_frames_and_engines_begin_while_a_graph_is_recorded(gpu, cpu, frames, arrays):
    """CUDA refuses to allocate, to free and to wait for the GPU meanwhile, unless a thread says otherwise."""
    first, second = gpu.load(), gpu.load()
    expected = [cpu.predict(frame).labels for frame in frames]
    given = arrays.interface(gpu.cuda, frames[0][:40])
    started = threading.Barrier(2)
    errors = []

    def others() -> None:
        started.wait(60)
        try:
            # A new size; then memory that a reader on an unknown stream may still need.
            lent = second.predict(given).labels_on_device
            _ = lent.__cuda_array_interface__
            del lent
            gc.collect()
            for frame, labels in zip(frames, expected, strict=True):
                np.testing.assert_array_equal(second.predict(frame).labels, labels)
            assert gpu.load().predict(frames[1]).labels.size
        except BaseException as error:
            errors.append(error)

    def meanwhile() -> None:
        if threading.get_ident() == next(iter(gpu.onnx.sessions[0].threads)):
            gpu.cuda.while_recording = lambda: None
            started.wait(60)
            time.sleep(0.5)

    gpu.cuda.while_recording = meanwhile
    thread = threading.Thread(target=others)
    thread.start()
    np.testing.assert_array_equal(first.predict(frames[0]).labels, expected[0])
    thread.join()
    assert errors == []
    assert gpu.cuda.counts["device synchronize"] >= 4  # Three engines were loaded, and memory was lent.


def test_another_library_ends_a_recording(gpu, cpu, frames, caplog):
    """It allocates in a thread of its own, in CUDA's default mode: that fails, and so does the recording."""
    segmenter = gpu.load()

    def another() -> None:
        thread = threading.Thread(target=lambda: statuses.append(gpu.cuda.cudaMalloc(100)[0]))
        thread.start()
        thread.join()

    for ended, captures in ((1, 1), (3, 0)):
        statuses: list[int] = []
        gpu.cuda.counts.clear()
        for i in range(5):
            gpu.cuda.while_recording = another if i < ended else lambda: None
            frame = frames[i][: 97 if ended == 1 else 40]
            np.testing.assert_array_equal(segmenter.predict(frame).labels, cpu.predict(frame).labels)
        assert statuses == [900] * ended
        assert gpu.cuda.counts["capture"] == captures
        assert caplog.text.count("this frame ran without it") == ended
        caplog.clear()
