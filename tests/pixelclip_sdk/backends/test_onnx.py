import numpy as np
import onnxruntime
import pytest

from pixelclip_sdk import BackendError, BackendUnavailableError
from pixelclip_sdk.backends import onnx
from pixelclip_sdk.backends.onnx import create_session, gpu_devices
from pixelclip_sdk.models import find_bundle


def text(count, width):
    rows = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="cannot load"):
        create_session(tmp_path / "bad.onnx")


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


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.parametrize(
    "said",
    [
        "Failed to load library libonnxruntime_providers_tensorrt.so with error: libnvinfer.so.10: "
        "cannot open shared object file: No such file or directory",
        "Please install TensorRT libraries as mentioned in the GPU requirements page",
    ],
)
def test_a_provider_without_its_libraries_is_unavailable(monkeypatch, provider, said):
    """What ONNX Runtime says then, on a machine that has the provider but not the libraries."""

    class Session:
        def __init__(self, *_arguments, **_options):
            raise RuntimeError(said)

    monkeypatch.setattr(onnx, "built_in_provider", lambda name: onnx.GPU_PROVIDERS[name])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    file = find_bundle("pixelclip-lite").file("image_encoder.onnx")
    with pytest.raises(BackendUnavailableError, match=r"lacks a library: .*pip install"):
        create_session(file, device="gpu", provider=provider)
    with pytest.raises(BackendError, match="cannot load") as error:
        create_session(file, device="cpu")
    assert not isinstance(error.value, BackendUnavailableError)
