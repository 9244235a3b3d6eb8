import colorsys
import logging
import multiprocessing

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from toy_photos import write_photos

from pixelclip_sdk.errors import ImageError
from training.data import augment
from training.data.augment import Crop, Cut
from training.data.photos import MaskedPhotos, Order, collate, find_pairs, reading
from training.masks.format import write_masks

SIZES = {"short_side": 90, "crop": 60, "input_size": 64, "mask_size": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 7)


def same(a, b):
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("images", "student_images", "masks"))


def test_a_sample_depends_on_seed_epoch_and_index_alone(folders):
    photos = MaskedPhotos(*folders, **SIZES)
    first = photos[0, 3]
    torch.rand(5)
    state = torch.get_rng_state()
    again = photos[0, 3]
    assert torch.equal(torch.get_rng_state(), state)  # and it draws from nobody else's numbers
    assert torch.equal(first.images[0], again.images[0])
    assert torch.equal(first.student_images[0], again.student_images[0])
    assert torch.equal(first.masks, again.masks)
    assert not torch.equal(first.images[0], photos[1, 3].images[0])
    assert not torch.equal(first.images[0], MaskedPhotos(*folders, **SIZES, seed=1)[0, 3].images[0])
    assert first.images[0].shape == (3, 64, 64)
    assert first.images[0].dtype == torch.uint8
    assert first.masks.shape[1:] == (32, 32)
    assert first.masks.dtype == torch.bool


def test_workers_change_nothing(folders):
    photos = MaskedPhotos(*folders, **SIZES)

    def read(workers):
        order = Order(len(photos), batch=4, parts=2, first=1, last=4, seed=5)
        with reading(photos, order, workers=workers, pin_memory=False) as batches:
            return list(batches)

    alone, together = read(0), read(2)
    assert len(alone) == 6
    assert all(a.names == b.names and same(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1500, 2250), (1333 * 2 / 3, 640)),  # SA-1B's usual photo
        ((2250, 1500), (1333 * 2 / 3, 640)),
        ((1500, 1900), (1024, 640)),
        ((500, 2000), (333.25, 333.25)),  # less than the crop: the whole short side
    ],
)
def test_the_long_side_is_bounded(folders, size, expected):
    """detectron2's ResizeShortestEdge(1024, 1333), then a crop of 640 pixels or what there is."""
    photos = MaskedPhotos(*folders, short_side=1024, long_side=1333, crop=640, input_size=64, mask_size=32)
    assert photos._resized(*size) == pytest.approx(expected)
    free = MaskedPhotos(*folders, short_side=1024, crop=640, input_size=64, mask_size=32)
    assert free._resized(*size) == (1024, 640)


def test_a_bounded_photo_is_cropped_to_a_larger_share(folders, monkeypatch):
    sides = []
    monkeypatch.setattr("training.data.photos.vary", lambda image: image)

    def note(_, crop, size):
        sides.append(crop.side)
        return torch.zeros(3, size, size, dtype=torch.uint8)

    monkeypatch.setattr("training.data.photos.take", note)
    for bound in (None, 100, 80):  # photos are 96×120
        MaskedPhotos(*folders, short_side=90, long_side=bound, crop=60, input_size=64, mask_size=32)[0, 0]
    assert sides == [64, 72, 90]


def test_a_batch_moves_whole(folders):
    photos = MaskedPhotos(*folders, **SIZES)
    batch = collate([photos[0, 0], photos[0, 1]])
    moved = batch.to(torch.device("meta"))
    assert {getattr(moved, name).device.type for name in ("images", "student_images", "masks")} == {"meta"}
    assert (moved.counts, moved.names) == (batch.counts, batch.names)


@pytest.mark.gpu
def test_the_loader_pins_a_batch_and_a_gpu_gets_it(folders):
    photos = MaskedPhotos(*folders, **SIZES)
    order = Order(len(photos), batch=4, parts=1, first=0, last=1, seed=5)
    (pinned,) = DataLoader(photos, batch_sampler=order, collate_fn=collate, pin_memory=True)
    assert pinned.images.is_pinned()
    assert pinned.student_images.is_pinned()
    assert pinned.masks.is_pinned()
    assert same(pinned.to(torch.device("cuda")).to(torch.device("cpu")), pinned)


def test_masks_go_where_their_pixels_go(tmp_path, monkeypatch):
    """A photo whose colours are its regions' numbers: under every crop and flip they still agree."""
    y, x = np.indices((90, 150))
    labels = 1 + (y // 15) * 10 + x // 15
    (tmp_path / "images").mkdir()
    Image.fromarray(np.stack([3 * labels] * 3, -1).astype(np.uint8)).save(tmp_path / "images" / "p.png")
    write_masks(tmp_path / "masks" / "p.npz", labels)
    monkeypatch.setattr("training.data.photos.vary", lambda image: image)
    photos = MaskedPhotos(
        tmp_path / "images",
        tmp_path / "masks",
        short_side=90,
        crop=60,
        input_size=60,
        mask_size=60,
        strong=False,
    )
    lefts = set()
    for epoch in range(6):
        sample = photos[epoch, 0]
        assert torch.equal(sample.images[0], sample.student_images[0])
        assert sample.masks.sum(0).max() == 1
        lefts.add(bool(sample.images[0][0, 0, 0] < sample.images[0][0, 0, -1]))
        for mask in sample.masks:
            values = sample.images[0][0][mask]
            assert (values == values[0]).all()
    assert lefts == {True, False}  # flipped and not


def test_the_student_sees_more_change_and_masks_lose_the_cut_out(folders):
    photos = MaskedPhotos(*folders, **SIZES)
    hidden = 0
    for index in range(len(photos)):
        sample = photos[0, index]
        black = (sample.student_images[0] == 0).all(0)
        hidden += int(black.sum())
        assert not torch.equal(sample.images[0], sample.student_images[0])
        small = black[::2, ::2] & black[1::2, 1::2]
        # The rectangle's own rounding is one pixel of each; what is black is no mask's.
        inner = -torch.nn.functional.max_pool2d(-small[None].float(), 3, 1, 1)[0] > 0
        assert not (sample.masks.any(0) & inner).any()
    assert hidden > len(photos) * 0.01 * 64 * 64


def test_augmentation_keeps_kind_and_shape():
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    torch.manual_seed(0)
    for _ in range(20):
        for changed in (augment.vary(image), augment.strengthen(image, 0.5)):
            assert changed.shape == image.shape
            assert changed.dtype == torch.uint8
        cut = augment.random_cut()
        assert 0 <= cut.top <= cut.top + cut.height <= 1
        assert 0 <= cut.left <= cut.left + cut.width <= 1


def pixels_of(*colours):
    """Colours as a picture `[3, 1, N]`."""
    return torch.tensor(colours, dtype=torch.float32).T[:, None]


@pytest.mark.parametrize(
    ("change", "amount", "expected"),
    [
        ("_brightened", 32, [(232, 132, 82), (42, 252, 255)]),
        ("_brightened", -32, [(168, 68, 18), (0, 188, 198)]),
        ("_contrasted", 1.5, [(255, 150, 75), (15, 255, 255)]),
        ("_contrasted", 0.5, [(100, 50, 25), (5, 110, 115)]),  # about black: what is dark stays dark
        ("_saturated", 0.5, [(200, 150, 125), (120, 225, 230)]),
        ("_saturated", 1.5, [(200, 200 / 3, 0), (0, 230 - 115 / 11, 230)]),  # no more than full
        ("_turned", 0.1, [(200, 190, 50), (10, 88, 230)]),
    ],
)
def test_colours_change_as_in_the_official_code(change, amount, expected):
    found = getattr(augment, change)(pixels_of((200, 100, 50), (10, 220, 230)), amount)
    torch.testing.assert_close(found, pixels_of(*expected), rtol=0, atol=0.02)


def test_saturation_and_hue_are_hsv_s():
    generator = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (3, 1, 200), generator=generator).float()
    picture[:, :, :3] = pixels_of((0, 0, 0), (255, 255, 255), (7, 7, 7))
    for amount in (0.5, 0.9, 1.5):
        for change, at in (("_saturated", 1), ("_turned", 0)):
            turn = amount - 1
            found = getattr(augment, change)(picture, amount if at else turn)
            for before, after in zip(picture[:, 0].T.tolist(), found[:, 0].T.tolist(), strict=True):
                hsv = list(colorsys.rgb_to_hsv(*(value / 255 for value in before)))
                hsv[at] = min(hsv[1] * amount, 1) if at else (hsv[0] + turn) % 1
                assert after == pytest.approx([255 * value for value in colorsys.hsv_to_rgb(*hsv)], abs=0.01)


def test_colours_change_by_the_official_amounts_and_half_of_the_time(monkeypatch):
    """Each step's amounts and the order of the steps, over many pictures."""
    orders, amounts = [], {name: [] for name in ("_brightened", "_contrasted", "_saturated", "_turned")}

    def note(name):
        def change(pixels, amount):
            orders[-1].append(name)
            amounts[name].append(amount)
            return pixels

        return change

    for name in amounts:
        monkeypatch.setattr(augment, name, note(name))
    torch.manual_seed(0)
    for _ in range(2000):
        orders.append([])
        augment.vary(torch.zeros(3, 1, 1, dtype=torch.uint8))
    ranges = {"_brightened": (-32, 32), "_contrasted": (0.5, 1.5), "_saturated": (0.5, 1.5)}
    for name, (low, high) in (ranges | {"_turned": (-0.1, 0.1)}).items():
        span = high - low
        assert len(amounts[name]) == pytest.approx(1000, abs=100)
        assert low <= min(amounts[name]) < low + 0.02 * span
        assert high - 0.02 * span < max(amounts[name]) <= high
    whole = [order for order in orders if len(order) == 4]
    first = ["_brightened", "_contrasted", "_saturated", "_turned"]
    last = ["_brightened", "_saturated", "_turned", "_contrasted"]
    assert {tuple(order) for order in whole} == {tuple(first), tuple(last)}
    assert whole.count(first) == pytest.approx(len(whole) / 2, abs=len(whole) / 5)


def test_a_cut_leaves_the_rest():
    picture = torch.ones(2, 10, 20)
    cut = Cut(top=0.2, left=0.5, height=0.3, width=0.25).of(picture, 0)
    assert picture.all()
    assert cut[:, 2:5, 10:15].sum() == 0
    assert cut.sum() == 2 * (200 - 15)


def test_a_crop_is_resampled_once():
    image = torch.arange(100, dtype=torch.uint8).reshape(1, 10, 10).expand(3, -1, -1)
    square = augment.take(image, Crop(2, 3, 4, flipped=False), 4)
    assert torch.equal(square, image[:, 2:6, 3:7])
    assert torch.equal(augment.take(image, Crop(2, 3, 4, flipped=True), 4), square.flip(-1))


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_a_step_has_the_same_photos_however_it_is_shared(world, parts):
    def steps(**changes):
        settings = {"batch": 12, "parts": parts, "first": 0, "last": 5, "seed": 3, "world": world} | changes
        orders = [list(Order(10, rank=rank, **settings)) for rank in range(settings["world"])]
        size = settings["parts"]
        return [
            [key for part in range(size) for order in orders for key in order[step * size + part]]
            for step in range(settings["last"] - settings["first"])
        ]

    whole = steps(world=1, parts=1)
    assert steps() == whole
    assert steps(first=2) == whole[2:]
    flat = [key for step in whole for key in step]
    for epoch in range(6):  # every photo once an epoch, in another order each
        assert sorted(flat[epoch * 10 : epoch * 10 + 10]) == [(epoch, i) for i in range(10)]
    assert len({tuple(i for _, i in flat[e * 10 : e * 10 + 10]) for e in range(6)}) == 6


def test_what_has_no_partner_is_left_out_and_named(tmp_path, caplog):
    images, masks = write_photos(tmp_path, 3)
    (masks / "a" / "00.npz").unlink()
    (images / "a" / "01.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert find_pairs(images, masks) == ["a/02.png"]
    assert "1 photos without masks: a/00.png" in caplog.text
    assert "1 masks without a photo: a/01" in caplog.text


def test_nothing_in_common_is_an_error(tmp_path):
    images, masks = write_photos(tmp_path, 1)
    with pytest.raises(ImageError, match=r"1 photos\) has masks"):
        find_pairs(images, masks / "a")
    with pytest.raises(ImageError, match="no folder"):
        find_pairs(images, tmp_path / "missing")


def test_corrupt_files_are_skipped_and_named(tmp_path):
    images, masks = write_photos(tmp_path, 4)
    whole = (images / "a" / "01.png").read_bytes()
    (images / "a" / "01.png").write_bytes(whole[: len(whole) // 2])
    (masks / "a" / "02.npz").write_bytes(b"nothing")
    photos = MaskedPhotos(images, masks, **SIZES)
    sample = photos[0, 1]
    assert sample.names == ("a/03.png",)
    assert len(sample.skipped) == 2
    assert "01.png" in sample.skipped[0]
    assert "02.npz" in sample.skipped[1]
    assert torch.equal(sample.images[0], photos[0, 3].images[0])
    assert collate([photos[0, 0], sample]).skipped == sample.skipped


def test_masks_of_another_aspect_are_skipped_and_named(tmp_path):
    """A map that is turned by 90° would teach nonsense."""
    images, masks = write_photos(tmp_path, 4)
    write_masks(masks / "a" / "01.npz", np.arange(1, 96 * 120 + 1).reshape(120, 96) // 100)
    write_masks(masks / "a" / "02.npz", np.arange(1, 48 * 60 + 1).reshape(48, 60) // 100)  # half the size
    photos = MaskedPhotos(images, masks, **SIZES)
    sample = photos[0, 1]
    assert sample.names == ("a/02.png",)
    (reason,) = sample.skipped
    assert "01.npz has masks of 120×96 for a photo of 96×120; expected the same aspect" in reason


def test_only_corrupt_files_is_an_error(tmp_path):
    images, masks = write_photos(tmp_path, 2)
    for file in images.rglob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(ImageError, match="2 files in a row"):
        MaskedPhotos(images, masks, **SIZES)[0, 0]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_reading_process_is_a_sentence_and_ends_it(tmp_path, workers):
    images, masks = write_photos(tmp_path, 2)
    for file in images.rglob("*.png"):
        file.write_bytes(b"nothing")
    photos = MaskedPhotos(images, masks, **SIZES)
    order = Order(2, batch=2, parts=1, first=0, last=3, seed=0)
    with (
        pytest.raises(ImageError, match=r"^2 files in a row cannot be used; the last: [^\n]*$"),
        reading(photos, order, workers=workers, pin_memory=False) as batches,
    ):
        next(batches)
    assert not multiprocessing.active_children()


def test_a_strip_of_a_photo_is_a_sample(tmp_path):
    images, masks = write_photos(tmp_path, 1)
    (file,) = images.rglob("*.png")
    Image.fromarray(np.zeros((2, 600, 3), np.uint8)).save(file)
    write_masks(next(masks.rglob("*.npz")), np.ones((1, 2, 600), bool))
    photos = MaskedPhotos(images, masks, **SIZES)
    for epoch in range(12):  # some are blurred
        assert photos[epoch, 0].student_images[0].shape == (3, 64, 64)


def test_empty_masks_and_single_pixels_are_dropped(tmp_path):
    images, masks = write_photos(tmp_path, 1)
    regions = np.zeros((3, 96, 120), bool)
    regions[1, 40, 40] = True
    regions[2] = True
    write_masks(masks / "a" / "00.npz", regions)
    sample = MaskedPhotos(images, masks, **SIZES, strong=False)[0, 0]
    assert sample.masks.shape == (1, 32, 32)
    write_masks(masks / "a" / "00.npz", regions[:2])
    assert len(MaskedPhotos(images, masks, **SIZES)[0, 0].masks) == 0
