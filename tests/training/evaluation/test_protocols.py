"""How photos are seen, against PyTorch's own operations and the SDK."""

import dataclasses

import numpy as np
import open_clip
import pytest
import torch
from clip_reference import perturbed
from PIL import Image
from torch.nn import functional as F

from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.backends.fake import FakeBackend
from pixelclip_sdk.bundle import InputSpec
from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX
from training.evaluation.protocols import Official, Whole, Windows, classify_masks, describe, segment
from training.evaluation.protocols import _bilinear as bilinear
from training.evaluation.protocols import _scaled_size as scaled_size
from training.evaluation.protocols import _shares as shares
from training.evaluation.protocols import _stretched as stretched
from training.models.clip.build import build_clip
from training.models.runtime import TorchBackend

SQUARE = InputSpec(height=64, width=64, multiple=8, fixed=True, keep_aspect=False)


@pytest.fixture(scope="module")
def pair():
    """A small CLIP with random weights, seen at 64×64 pixels."""
    vision = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    model = perturbed(open_clip.CLIP(16, vision, text, quick_gelu=True))
    return build_clip("tiny", model, input_size=(64, 64))


@pytest.fixture
def words(pair, photo):
    """Four words that each win somewhere: what single cells have apart from the rest."""
    small = np.asarray(Image.fromarray(photo).resize((64, 64)))
    features = TorchBackend(pair).features(small[None])[0]
    mean = features.mean(axis=(0, 1))
    rows = features[[5, 20, 40, 60], [5, 50, 20, 60]]
    rows = rows - (rows @ mean)[:, None] * mean / (mean @ mean)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def upsampled(logits, size):
    return F.interpolate(torch.from_numpy(logits)[None], size=size, mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("size", [(64, 64), (500, 333)])
def test_squashing_is_pytorchs_interpolation(photo, size):
    pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
    expected = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
    assert np.abs(stretched(photo, size) - expected.numpy()).max() < 0.501


def test_sizes_are_those_of_detectron2():
    assert scaled_size((360, 480, 3), 640, 2560) == (640, 853)
    assert scaled_size((1024, 2048, 3), 640, 2560) == (640, 1280)
    assert scaled_size((100, 1000, 3), 640, 2560) == (256, 2560)


@torch.no_grad()
def test_the_official_protocol_step_by_step(pair, photo, words):
    """As the official code does it, in floats."""
    found = segment(Official(), photo, words, TorchBackend(pair), pair.input)
    scaled = np.asarray(Image.fromarray(photo).resize((962, 640), Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(scaled.copy()).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size=(64, 64), mode="bilinear", align_corners=False)
    image = pair.image
    features = image.tower((pixels - image.mean) / image.std).permute(0, 3, 1, 2)
    features = F.interpolate(features, size=(64, 64), mode="bilinear", align_corners=False)
    logits = torch.einsum("kd,ndhw->nkhw", torch.from_numpy(words), F.normalize(features, dim=1))
    expected = upsampled(logits[0].numpy(), (300, 451)).argmax(0).numpy()
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.995  # pixels are rounded before the encoder


def test_windows_average_where_they_overlap(pair, photo, words):
    backend, window = TorchBackend(pair), 64
    found = segment(Windows(short_side=100, stride=30), photo, words, backend, pair.input)
    image = np.asarray(Image.fromarray(photo).resize((150, 100), Image.Resampling.BILINEAR))
    total, count = torch.zeros(4, 100, 150), torch.zeros(100, 150)
    for row in (0, 30, 36):
        for column in (0, 30, 60, 86):
            crop = np.ascontiguousarray(image[row : row + window, column : column + window])
            place = np.s_[row : row + window, column : column + window]
            total[:, *place] += upsampled(backend.logits(crop[None], words)[0], (window, window))
            count[place] += 1
    expected = upsampled((total / count).numpy(), (300, 451)).argmax(0).numpy()
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.999


def test_one_window_that_is_the_photo_is_one_pass(patches, colour_vocabulary):
    words = colour_vocabulary("red", "green", "blue")
    backend = FakeBackend(stride=8)
    single = segment(Windows(short_side=64, stride=32), patches, words.embeddings, backend, SQUARE)
    whole = Segmenter(backend, SQUARE, vocabulary=words).predict(patches)
    assert (single == whole.labels).mean() > 0.999


def test_windows_of_a_model_with_a_fixed_batch(photo, colour_vocabulary):
    text = colour_vocabulary("red", "green").embeddings
    protocol, free = Windows(short_side=100, stride=30), FakeBackend(stride=8)
    sizes = []

    class Five(FakeBackend):
        def _logits(self, images, text):
            sizes.append(len(images))
            return super()._logits(images, text)

    spec = dataclasses.replace(SQUARE, batch=5)
    found = segment(protocol, photo, text, Five(stride=8), spec)
    assert sizes == [5, 5, 2]  # twelve windows
    assert np.array_equal(found, segment(protocol, photo, text, free, SQUARE))


def test_windows_that_do_not_fit(patches, colour_vocabulary):
    text = colour_vocabulary("red").embeddings
    with pytest.raises(PixelClipError, match="a short side of at least 64"):
        segment(Windows(short_side=50, stride=10), patches, text, FakeBackend(stride=8), SQUARE)


def test_windows_that_leave_gaps(patches, colour_vocabulary):
    text = colour_vocabulary("red").embeddings
    with pytest.raises(PixelClipError, match=r"a stride of 65 leaves gaps .* at most 64"):
        segment(Windows(short_side=130, stride=65), patches, text, FakeBackend(stride=8), SQUARE)


def test_a_strip_of_a_photo_is_segmented(colour_vocabulary):
    text = colour_vocabulary("red", "green").embeddings
    strip = np.zeros((1, 6000, 3), np.uint8)
    strip[..., 1] = 255
    assert (segment(Official(), strip, text, FakeBackend(stride=8), SQUARE) == 1).all()


@pytest.mark.parametrize("protocol", [Whole(), Official()])
def test_masks_get_the_class_of_what_is_in_them(patches, colour_vocabulary, protocol):
    text = colour_vocabulary("blue", "green", "red").embeddings
    truth = np.full((64, 64), IGNORE_INDEX, np.uint8)
    truth[4:28, 4:60], truth[36:60, 4:28], truth[40:42, 50:52] = 0, 1, 2
    truth[60:] = BACKGROUND
    found = classify_masks(protocol, patches, truth, text, FakeBackend(stride=8), SQUARE)
    assert np.unique(found[truth == 0]).tolist() == [2]  # red, whatever the label said
    assert np.unique(found[truth == 1]).tolist() == [1]
    assert np.unique(found[truth == 2]).tolist() == [0]  # four pixels, much less than a cell
    assert (found[truth == IGNORE_INDEX] == IGNORE_INDEX).all()
    assert (found[truth == BACKGROUND] == BACKGROUND).all()


def test_a_mask_s_embedding_is_the_mean_over_its_pixels(pair, photo, words):
    """The same as features of the nearest cell, averaged pixel by pixel."""
    backend = TorchBackend(pair)
    image = np.ascontiguousarray(photo[:256, :256])
    truth = np.random.default_rng(0).integers(0, 3, (256, 256)).astype(np.uint8)
    truth[:, :128] = 3
    found = classify_masks(Whole(), image, truth, words, backend, pair.input)
    small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    features = backend.features(small[None])[0].repeat(4, axis=0).repeat(4, axis=1)
    for value in range(4):
        expected = int((words @ features[truth == value].mean(axis=0)).argmax())
        assert np.unique(found[truth == value]).tolist() == [expected]


def test_masks_of_a_padded_photo(patches, colour_vocabulary):
    spec = dataclasses.replace(SQUARE, keep_aspect=True)
    text = colour_vocabulary("blue", "green", "red").embeddings
    truth = np.zeros((64, 128), np.uint8)
    truth[32:], truth[32:, 64:] = 1, 2
    found = classify_masks(Whole(), patches.repeat(2, axis=1), truth, text, FakeBackend(stride=8), spec)
    assert [found[0, 0], found[60, 0], found[60, 120]] == [2, 1, 0]


def test_shares_of_pixels_in_cells():
    assert shares(2, 2.0, 3).tolist() == [[1, 0.5, 0], [0, 0.5, 1]]
    np.testing.assert_allclose(shares(8, 5.5, 37).sum(axis=0), 1, rtol=1e-6)
    assert (shares(8, 5.5, 37)[6:] == 0).all()


@pytest.mark.parametrize(("points", "pixels"), [(8, 64), (5, 13), (9, 4)])
def test_the_bilinear_matrix_is_pytorchs(points, pixels):
    expected = F.interpolate(torch.eye(points)[None], size=pixels, mode="linear", align_corners=False)[0].T
    np.testing.assert_allclose(bilinear(points, pixels), expected.numpy(), atol=1e-6)


def test_what_is_reported():
    about = describe(Windows(short_side=100, stride=30), SQUARE)
    assert about["name"] == "windows"
    assert (about["short_side"], about["stride"], about["window"]) == (100, 30, [64, 64])
    assert describe(Official(), SQUARE)["longest"] == 2560
    assert describe(Whole(refine="edges"), SQUARE)["refine"] == "edges"
    assert "argmax" in describe(Official(), SQUARE)["postprocessing"]
    assert "argmax" not in describe(Whole(), SQUARE)["postprocessing"]
