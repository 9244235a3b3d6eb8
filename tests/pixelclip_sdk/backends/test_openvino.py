"""What OpenVINO has of its own; test_contract.py has what every engine does."""

import subprocess
import sys

import numpy as np
import pytest

from pixelclip_sdk import BackendError, BackendUnavailableError, Segmenter
from pixelclip_sdk.backends import openvino as module
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.openvino import PRECISIONS, OpenVinoBackend, openvino_devices
from pixelclip_sdk.models import find_bundle


@pytest.fixture(scope="module")
def core():
    pytest.importorskip("openvino")
    return module.openvino_core()


@pytest.fixture(scope="module")
def lite():
    return find_bundle("pixelclip-lite")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no stacks for signals")
def test_signals_are_handled_after_engines_have_gone():
    """The first of two engines goes first, and one goes in another thread; then the process gets a signal."""
    pytest.importorskip("openvino")
    code = """
import gc, signal, threading
from pixelclip_sdk import Segmenter

def engine():
    return Segmenter.from_pretrained(backend="openvino", threads=1)

def end(segmenter):
    segmenter.close()
    del segmenter
    gc.collect()

first, second = engine(), engine()
first.close()
del first
gc.collect()
thread = threading.Thread(target=end, args=(second,))
del second
thread.start()
thread.join()
del thread
gc.collect()
handled = []
signal.signal(signal.SIGTERM, lambda *_: handled.append(True))
signal.raise_signal(signal.SIGTERM)
print(handled)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (result.returncode, result.stdout) == (0, "[True]\n"), result.stderr


def test_the_name_states_the_precision(core, lite, photo):
    """Where the processor lacks it, that is an error: OpenVINO by itself takes another one."""
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    image = photo[None, :288, :448]
    text = np.eye(20, 384, dtype=np.float32)
    with open_backend(lite, "openvino", "cpu") as exact:
        expected = exact.logits(image, text)
        assert "openvino on cpu in fp32" in exact.description
    for name, ability in (("openvino-bf16", "BF16"), ("openvino-fp16", "FP16")):
        if ability not in able:
            with pytest.raises(
                BackendUnavailableError, match=f"backend is '{name}'; openvino's CPU computes"
            ):
                open_backend(lite, name, "cpu")
            continue
        with open_backend(lite, name, "cpu") as rounded:
            assert rounded.name == name
            assert name.partition("-")[2] in rounded.description
            difference = np.abs(rounded.logits(image, text) - expected).max()
            assert 1e-4 < difference < 0.1


def test_a_precision_that_openvino_does_not_take_is_an_error(core, lite, monkeypatch):
    """Its CPU plugin takes bf16 or fp32 where fp16 is asked for, and says nothing."""
    if "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor computes in fp16")
    monkeypatch.setitem(module._ABILITIES, "f16", "FP32")
    with pytest.raises(BackendUnavailableError, match="backend is 'openvino-fp16', but openvino computes in"):
        open_backend(lite, "openvino-fp16", "cpu")


def test_bf16_runs_the_shipped_model_in_a_process_of_its_own(core):
    """OpenVINO 2026.4 ends the process on weights that are stored in int8, unless they are expanded."""
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    code = (
        "import numpy as np; from pixelclip_sdk import Segmenter\n"
        "with Segmenter.from_pretrained(backend='openvino-bf16', classes=['cat', 'sofa']) as segmenter:\n"
        "    print(segmenter.predict(np.zeros((48, 64, 3), np.uint8)).labels.shape)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, "(48, 64)\n"), result.stderr


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.usefixtures("core")
def test_nvidias_gpus_are_refused(lite, name):
    with pytest.raises(BackendUnavailableError, match="runs on no NVIDIA GPU"):
        open_backend(lite, name, "cuda:0")


def test_devices_that_are_not_there_are_refused(core, lite):
    for device, theirs in (("gpu", "GPU"), ("npu", "NPU"), ("gpu:3", "GPU.3")):
        if not any(found.startswith(theirs) for found in core.available_devices):
            with pytest.raises(BackendUnavailableError, match=f"device is {device}.*openvino finds CPU"):
                open_backend(lite, "openvino", device)


@pytest.mark.parametrize("name", ["auto", "onnx", "tensorrt"])
def test_an_npu_needs_openvino(lite, name):
    with pytest.raises(BackendUnavailableError, match='device "npu" needs a backend of OpenVINO'):
        open_backend(lite, name, "npu")


def test_without_the_package_the_extra_is_named(lite, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for find in (openvino_devices, lambda: open_backend(lite, "openvino")):
        with pytest.raises(BackendUnavailableError, match=r'pip install "pixelclip-sdk\[openvino\]"'):
            find()


@pytest.mark.usefixtures("core")
def test_a_failure_of_openvino_is_an_error_of_ours(lite):
    """A graph of another width."""
    with (
        OpenVinoBackend(lite.file("image_encoder.onnx"), embedding_dim=100, multiple=32) as backend,
        pytest.raises(BackendError, match=r"openvino failed on images \(1, 64, 64, 3\)"),
    ):
        backend.logits(np.zeros((1, 64, 64, 3), np.uint8), np.eye(2, 100, dtype=np.float32))


@pytest.mark.usefixtures("core")
def test_frames_of_a_stream_have_their_cores(photo):
    frames = [photo[i : 240 + i, :320] for i in range(6)]
    with Segmenter.from_pretrained(backend="openvino", classes=["cat", "sofa"]) as segmenter:
        found = [result.labels for result in segmenter.stream(iter(frames))]
        for frame, labels in zip(frames, found, strict=True):
            assert (labels == segmenter.predict(frame).labels).mean() > 0.999


@pytest.mark.usefixtures("core")
def test_a_program_that_never_closes_ends():
    code = (
        "import numpy as np; from pixelclip_sdk import Segmenter\n"
        "kept = Segmenter.from_pretrained(backend='openvino', classes=['cat', 'sofa'])\n"
        "kept.predict(np.zeros((48, 64, 3), np.uint8))"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=120)
    assert result.returncode == 0
