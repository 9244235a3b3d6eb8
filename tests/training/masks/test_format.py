import tracemalloc

import numpy as np
import pytest

from pixelclip_sdk.errors import ImageError
from training.masks.format import read_masks, write_masks


def test_overlapping_masks_come_back_as_they_were(tmp_path):
    masks = np.random.default_rng(0).random((5, 7, 13)) > 0.5
    write_masks(tmp_path / "a" / "b.npz", masks)
    assert read_masks(tmp_path / "a" / "b.npz").dtype == np.bool_
    np.testing.assert_array_equal(read_masks(tmp_path / "a" / "b.npz"), masks)


def test_a_partition_comes_back_as_one_mask_a_region(tmp_path):
    labels = np.array([[0, 7, 7], [65535, 7, 0]])
    write_masks(tmp_path / "p.npz", labels)
    np.testing.assert_array_equal(read_masks(tmp_path / "p.npz"), [labels == 7, labels == 65535])


@pytest.mark.parametrize("kind", ["labels", "masks"])
def test_sampling_takes_the_nearest_pixels(tmp_path, kind):
    labels = np.repeat(np.repeat(np.arange(1, 7).reshape(2, 3), 4, 0), 4, 1)
    regions = labels if kind == "labels" else np.stack([labels == i for i in range(1, 7)])
    write_masks(tmp_path / "p.npz", regions)
    found = read_masks(tmp_path / "p.npz", at=(np.array([0.25, 0.75]), np.array([1.0, 0.5, 0.0])))
    assert (found.sum(0) == 1).all()
    np.testing.assert_array_equal(found.argmax(0) + 1, [[3, 2, 1], [6, 5, 4]])


def test_no_masks_at_all(tmp_path):
    write_masks(tmp_path / "none.npz", np.zeros((0, 4, 6), bool))
    assert read_masks(tmp_path / "none.npz").shape == (0, 4, 6)
    write_masks(tmp_path / "zero.npz", np.zeros((4, 6), np.uint8))
    assert read_masks(tmp_path / "zero.npz").shape == (0, 4, 6)


@pytest.mark.parametrize("regions", [np.arange(24).reshape(4, 6), np.ones((2, 4, 6), bool)])
def test_masks_of_another_photo_are_refused(tmp_path, regions):
    write_masks(tmp_path / "p.npz", regions)
    assert read_masks(tmp_path / "p.npz", photo=(400, 600)).shape[1:] == (4, 6)
    with pytest.raises(ImageError, match=r"p\.npz has masks of 4×6 for a photo of 600×400"):
        read_masks(tmp_path / "p.npz", photo=(600, 400))


@pytest.mark.parametrize(
    "regions",
    [np.zeros((3, 4)), np.full((3, 4), 65536), np.full((3, 4), -1), np.zeros((2, 3, 4), np.uint8)],
)
def test_other_arrays_are_refused(tmp_path, regions):
    with pytest.raises(ImageError, match="expected labels"):
        write_masks(tmp_path / "x.npz", regions)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_files_are_named(tmp_path):
    write_masks(tmp_path / "good.npz", np.arange(20000).reshape(100, 200))
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.npz").write_bytes(whole[:200] + bytes([whole[200] ^ 255]) + whole[201:])
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.savez(tmp_path / "foreign.npz", pictures=np.zeros(3))
    np.savez(tmp_path / "pickle.npz", labels=np.array([{}], dtype=object))
    for name in ("cut", "flipped", "text", "empty", "foreign", "pickle", "missing"):
        with pytest.raises(ImageError, match=name):
            read_masks(tmp_path / f"{name}.npz")


def peak_memory(function):
    """Largest number of bytes that numpy and Python allocate in a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": np.zeros((2**14, 2**13), np.uint16)}, "arrays of 268 MB; expected at most 134 MB"),
        ({"masks": np.zeros((2**15, 8, 2**7), np.uint8), "shape": np.array([2**15, 8, 2**10])}, None),
        (
            {"labels": np.arange(2**16, dtype=np.uint16).reshape(256, 256)},
            "65535 masks of 256×256 pixels",
        ),
    ],
)
def test_files_that_need_gigabytes_are_refused_before_they_are_read(tmp_path, arrays, message):
    file = tmp_path / "large.npz"
    np.savez_compressed(file, **arrays)
    del arrays
    assert file.stat().st_size < 1e6

    def read():
        if message is None:  # the arrays are within bounds, the pixels sampled from them are not
            steps = (np.arange(256) + 0.5) / 256
            with pytest.raises(ImageError, match=r"32768 masks of 256×256 pixels need 2\.1 GB"):
                read_masks(file, at=(steps, steps))
        else:
            with pytest.raises(ImageError, match=message):
                read_masks(file)

    assert peak_memory(read) < 2e8


def test_masks_that_could_not_be_read_are_not_written(tmp_path):
    with pytest.raises(ImageError, match=r"arrays of 268 MB.*smaller --side"):
        write_masks(tmp_path / "large.npz", np.broadcast_to(np.uint8(1), (2**14, 2**13)))
    with pytest.raises(ImageError, match=r"4096 masks of 1024×1024 pixels need 4\.3 GB"):
        write_masks(tmp_path / "large.npz", np.broadcast_to(np.True_, (4096, 1024, 1024)))
    assert not list(tmp_path.iterdir())


def test_a_flipped_bit_is_harmless_or_named(tmp_path):
    """zipfile and numpy fail in many ways: encrypted, unknown methods, headers that are no Python."""
    labels = np.array([[0, 7, 7], [300, 7, 0]])
    write_masks(tmp_path / "good.npz", labels)
    whole = (tmp_path / "good.npz").read_bytes()
    named = 0
    for place in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            found = read_masks(tmp_path / "flipped.npz")
        except ImageError:
            named += 1
        else:
            np.testing.assert_array_equal(found, [labels == 7, labels == 300])
    assert named > 4 * len(whole)
