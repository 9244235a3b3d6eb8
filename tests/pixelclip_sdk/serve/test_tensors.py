"""The tensors that Triton's model and `/v2` share."""

import subprocess
import sys

import numpy as np
import pytest

from pixelclip_sdk import ImageError, PixelClipError, VocabularyError
from pixelclip_sdk.serve.tensors import (
    check_vocabulary,
    read_images,
    read_limits,
    read_words,
    write_outputs,
)

LISTS = ("voc-20", "rooms")


def test_triton_needs_nothing_of_the_extra_serve():
    code = (
        "import sys, pixelclip_sdk.serve.tensors\n"
        "print([m for m in ('fastapi', 'starlette', 'uvicorn', 'prometheus_client') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([b"cat", b"dog"], ["cat", "dog"]),
        ([b"cat"], ["cat"]),
        ([b" cat ", b"sofa, couch"], {"cat": ["cat"], "sofa": ["sofa", "couch"]}),
        ([b"Rooms "], "rooms"),
        ([b"rooms", b"cat"], ["rooms", "cat"]),
        (["K\u00e4tzchen".encode(), b"0"], ["K\u00e4tzchen", "0"]),
    ],
)
def test_words(items, expected):
    assert read_words(items, LISTS, limited=False) == expected


def test_one_item_with_commas_is_a_class_only_with_a_limit():
    with pytest.raises(VocabularyError, match="one class, which would get every pixel"):
        read_words([b"cat, dog"], LISTS, limited=False)
    assert read_words([b"cat, dog"], LISTS, limited=True) == {"cat": ["cat", "dog"]}


@pytest.mark.parametrize("count", [0, 256])
def test_labels_have_eight_bits(count):
    with pytest.raises(VocabularyError, match=f"has {count} items; expected 1 to 255"):
        read_words([b"w%d" % i for i in range(count)], LISTS, limited=False)


def test_a_long_list_is_refused(fake):
    class Long:
        names = ("w",) * 256

    check_vocabulary(fake.vocabulary)
    with pytest.raises(VocabularyError, match="256 classes; expected at most 255"):
        check_vocabulary(Long())


def test_images():
    assert read_images({"image": np.array([b"a", b"b"], np.object_)}) == [b"a", b"b"]
    assert read_images({"pixels": np.zeros((4, 5, 3), np.uint8)}).shape == (1, 4, 5, 3)
    for tensors in (
        {},
        {"image": np.array([], np.object_)},
        {"pixels": np.zeros((4, 5), np.uint8)},
        {"pixels": np.zeros((1, 4, 5, 3), np.uint8), "image": np.array([b"a"], np.object_)},
    ):
        with pytest.raises(ImageError):
            read_images(tensors)


def test_limits():
    assert read_limits({"threshold": np.array([0.5], np.float32)}) == {"threshold": 0.5}
    with pytest.raises(PixelClipError, match="min_confidence has 2 values"):
        read_limits({"min_confidence": np.zeros(2, np.float32)})


def test_outputs(fake, patches):
    results = [fake.predict(patches), fake.predict(patches[::-1])]
    outputs = write_outputs(results, ["labels", "areas", "names"])
    assert sorted(outputs) == ["areas", "labels", "names"]
    assert outputs["names"].tolist() == [b"red", b"green", b"blue"]
    np.testing.assert_array_equal(outputs["labels"], [result.labels for result in results])
    np.testing.assert_allclose(outputs["areas"], [[0.5, 0.25, 0.25]] * 2, atol=0.02)
    assert {name: value.dtype.name for name, value in outputs.items()} == {
        "areas": "float32",
        "labels": "uint8",
        "names": "object",
    }
    with pytest.raises(ImageError, match="the sizes 32×64, 64×64; expected one size"):
        write_outputs([results[0], fake.predict(patches[:32])], ["labels"])
