import numpy as np
import pytest

from pixelclip_sdk import Backend, BackendError, BackendUnavailableError, FakeBackend
from pixelclip_sdk.backends.base import Device

IMAGES = np.zeros((1, 16, 24, 3), np.uint8)
TEXT = np.eye(2, 3, dtype=np.float32)


class Fixed(Backend):
    """Returns the same arrays whatever the input."""

    def __init__(self, logits=None, features=None):
        super().__init__(embedding_dim=3, multiple=8)
        self._outputs = logits, features

    @property
    def description(self):
        return "fixed outputs"

    def _logits(self, images, text):  # noqa: ARG002
        return self._outputs[0]

    def _features(self, images):  # noqa: ARG002
        return self._outputs[1]


def test_a_backend_of_ones_own_runs():
    logits = np.zeros((1, 2, 2, 3), np.float32)
    assert Fixed(logits=logits).logits(IMAGES, TEXT) is logits
    assert Fixed().name == "custom"
    assert FakeBackend().name == "fake"


def with_value(shape, value):
    array = np.zeros(shape, np.float32)
    array.flat[array.size // 2] = value
    return array


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (
            np.zeros((1, 2, 6), np.float32),
            r"returned logits float32 \(1, 2, 6\); expected float32 \(1, 2, h, w\)",
        ),
        (np.zeros((1, 3, 2, 3), np.float32), r"expected float32 \(1, 2, h, w\)"),
        (np.zeros((2, 2, 2, 3), np.float32), r"expected float32 \(1, 2, h, w\)"),
        (np.zeros((1, 2, 0, 3), np.float32), r"expected float32 \(1, 2, h, w\)"),
        (np.zeros((1, 2, 2, 3), np.float64), "returned logits float64"),
        (with_value((1, 2, 2, 3), np.nan), "NaN or infinite"),
        (with_value((1, 2, 2, 3), np.inf), "NaN or infinite"),
        (np.stack([with_value((2, 2, 3), s * np.inf) for s in (1, -1)])[:1], "NaN or infinite"),
    ],
)
def test_logits_are_checked(logits, message):
    with pytest.raises(BackendError, match=message):
        Fixed(logits=logits).logits(IMAGES, TEXT)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((1, 2, 3, 4), np.float32), r"returned features .*; expected float32 \(1, h, w, 3\)"),
        (np.zeros((1, 0, 3, 3), np.float32), r"expected float32 \(1, h, w, 3\)"),
        (np.zeros((2, 3, 3), np.float32), r"expected float32 \(1, h, w, 3\)"),
        (np.zeros((1, 2, 3, 3), np.float16), "returned features float16"),
        (with_value((1, 2, 3, 3), np.nan), "NaN or infinite"),
    ],
)
def test_features_are_checked(features, message):
    with pytest.raises(BackendError, match=message):
        Fixed(features=features).features(IMAGES)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("cpu", Device("cpu")),
        ("gpu", Device("gpu")),
        ("cuda", Device("gpu")),
        ("cuda:0", Device("gpu", 0)),
        ("gpu:0", Device("gpu", 0)),
        ("cuda:12", Device("gpu", 12)),
    ],
)
def test_cuda_is_another_name_of_gpu(text, device):
    assert Device.parse(text) == device


@pytest.mark.parametrize(
    "text", ["cuda:", "cuda:x", "gpu:-1", "GPU 0", "cpu:0", "gpu:" + "9" * 5000, 0, None]
)
def test_other_devices_are_refused(text):
    with pytest.raises(BackendUnavailableError, match="device is"):
        Device.parse(text)
