import dataclasses

import numpy as np
import pytest

from pixelclip_sdk import BackendError
from pixelclip_sdk.backends.engine import EngineInfo, TensorInfo
from pixelclip_sdk.backends.limits import Limits, TextSlot

TENSORS = (
    TensorInfo(
        name="image",
        mode="input",
        dtype="uint8",
        shape=(-1, -1, -1, 3),
        profile=((1, 32, 64, 3), (1, 96, 96, 3), (4, 128, 160, 3)),
    ),
    TensorInfo(name="text", mode="input", dtype="float32", shape=(-1, 8), profile=((2, 8), (8, 8), (20, 8))),
    TensorInfo(name="logits", mode="output", dtype="float32", shape=(-1, -1, -1, -1)),
    TensorInfo(name="features", mode="output", dtype="float32", shape=(-1, -1, -1, 8)),
)
INFO = EngineInfo(
    model="model",
    flavor="tensorrt",
    tensorrt_version="11.4.0.106",
    compute_capability="8.6",
    gpu="",
    system="",
    precision="fp32",
    layers={},
    stored_as="fp32",
    tensors=TENSORS,
    onnx_sha256="",
    plan_size=1,
    plan_sha256="",
    options={},
)
LIMITS = Limits.of(INFO, 8)


def with_tensor(index, **changes):
    tensors = list(TENSORS)
    tensors[index] = dataclasses.replace(tensors[index], **changes)
    return dataclasses.replace(INFO, tensors=tuple(tensors))


def test_limits_are_those_of_the_profile():
    assert Limits((1, 4), (32, 128), (64, 160), (2, 20)) == LIMITS
    assert LIMITS.fixed_size is None
    assert dataclasses.replace(LIMITS, height=(96, 96), width=(64, 64)).fixed_size == (96, 64)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (with_tensor(0, dtype="float32"), "image is float32"),
        (with_tensor(2, dtype="float16"), "logits is float16"),
        (with_tensor(3, name="other"), "no tensor 'features'"),
        (with_tensor(1, shape=(-1,), profile=((1,), (1,), (1,))), "text is float32 with 1"),
        (with_tensor(1, profile=((1, 9), (1, 9), (1, 9))), "8 wide"),
    ],
)
def test_an_engine_of_another_contract_is_refused(info, said):
    with pytest.raises(BackendError, match=said):
        Limits.of(info, 8)


@pytest.mark.parametrize("batch", [(1, 4), (1, 1), (4, 4), (3, 5)])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_pieces_hold_every_picture_once_and_fit_the_engine(batch, count):
    pieces = list(dataclasses.replace(LIMITS, batch=batch).pieces(count))
    images = list(range(count))
    assert [i for piece, _ in pieces for i in images[piece]] == images
    for piece, given in pieces:
        assert batch[0] <= given <= batch[1]
        assert len(images[piece]) <= given


def test_too_few_texts_are_padded_and_too_many_refused():
    assert [LIMITS.texts(count, "") for count in (1, 2, 20)] == [2, 2, 20]
    with pytest.raises(BackendError, match=r"21 classes; this engine takes at most 20. Do this"):
        LIMITS.texts(21, "Do this")


def test_sizes_outside_of_the_profile_are_refused():
    LIMITS.check_size(32, 160, "")
    for height, width, said in ((31, 64, "height of 32 to 128"), (32, 161, "width of 64 to 160")):
        with pytest.raises(BackendError, match=said):
            LIMITS.check_size(height, width, "")


def test_unchanged_words_are_known_and_changed_ones_noticed():
    slot = TextSlot()
    words = np.eye(3, 8, dtype=np.float32)
    assert not slot.holds(words)
    slot.remember(words)
    assert slot.holds(words)
    assert slot.holds(words.copy())
    words[0, 1] = 0.5  # In place: the same object, other words.
    assert not slot.holds(words)
    slot.remember(words)
    assert not slot.holds(words[:2])
    slot.forget()
    assert not slot.holds(words)


def test_words_that_cannot_change_are_not_compared(monkeypatch):
    slot = TextSlot()
    words = np.eye(3, 8, dtype=np.float32)
    words.setflags(write=False)
    slot.remember(words)
    monkeypatch.setattr(np, "array_equal", None)
    assert slot.holds(words)


def test_a_view_of_words_that_can_change_is_compared():
    slot = TextSlot()
    words = np.eye(3, 8, dtype=np.float32)
    view = words.view()
    view.setflags(write=False)
    slot.remember(view)
    words[0, 1] = 0.5
    assert not slot.holds(view)
