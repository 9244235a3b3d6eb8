"""A cell's features are of the middle of its pixels, for every image encoder.

Everything after the encoders takes cell `i` of a stride `s` to be centred at pixel `s (i + 1/2)`: upsampling,
mask pooling, scoring. Then a mirrored picture has the mirrored features.
"""

import copy

import numpy as np
import open_clip
import pytest
import torch
from clip_reference import perturbed
from PIL import Image
from torch import nn

from export.graph.lean import LeanImageEncoder
from training.models.clip.convnext import DenseConvNeXt
from training.models.clip.vit import DenseViT
from training.models.dense import DenseImageEncoder
from training.models.lite.build import build_lite

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16}
CONVNEXT = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 64}


def mirrored(encoder: nn.Module) -> nn.Module:
    """A copy of an encoder whose weights are mirrored in x: kernels and position embeddings."""
    encoder = copy.deepcopy(encoder)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.flip(-1))
            if isinstance(module, open_clip.transformer.VisionTransformer):
                grid = module.positional_embedding[1:].unflatten(0, (4, 4))
                module.positional_embedding[1:] = grid.flip(1).flatten(0, 1)
    return encoder


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (160, 64)])
@pytest.mark.parametrize("kind", ["vit", "convnext"])
def test_mirrored_weights_give_a_mirrored_clip(kind, size):
    """No padding, no interpolation and no resizing of positions prefers a side; also as it is exported."""
    torch.manual_seed(0)
    if kind == "vit":
        tower = DenseViT(perturbed(open_clip.CLIP(32, VIT, TEXT, quick_gelu=True)).visual)
    else:
        tower = DenseConvNeXt(perturbed(open_clip.CLIP(32, CONVNEXT, TEXT)).visual)
    encoder = DenseImageEncoder(tower).eval()
    image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    expected = encoder.encode_image(image).flip(2)
    other = mirrored(encoder)
    for features in (
        other.encode_image(image.flip(2)),
        LeanImageEncoder(other, size)(image.flip(2), torch.eye(32))[1],
    ):
        torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)
    # The weights themselves are not symmetric, so the test can fail.
    assert (encoder.encode_image(image.flip(2)) - expected).abs().max() > 0.01


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    return build_lite().image


@torch.no_grad()
def centre_of_a_cell(trunk: nn.Module) -> np.ndarray:
    """Where the features of cell (0, 0) are of, pixels (y, x): from how they change with a pasted square."""
    data = pytest.importorskip("skimage.data")
    names = ("astronaut", "chelsea", "coffee", "rocket", "immunohistochemistry")
    photos = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in names]
    random, side, found = np.random.default_rng(0), 96, []

    def features(picture: np.ndarray) -> torch.Tensor:
        return nn.functional.normalize(
            trunk((torch.from_numpy(picture).permute(2, 0, 1)[None] - 127.0) / 128)[0], dim=0
        )

    for background in photos:
        before = np.array(background.resize((448, 352)))
        original = features(before)
        for item in photos * 2:
            after = before.copy()
            y, x = random.integers(176 - side, 176), random.integers(224 - side, 224)
            square = np.array(item.resize((side, side)))
            after[y : y + side, x : x + side] = square[:, ::-1] if random.random() < 0.5 else square
            weight = (features(after) - original).square().sum(0).numpy()
            weight /= weight.sum()
            rows, columns = weight.sum(1) @ np.arange(11), weight.sum(0) @ np.arange(14)
            found.append((y + side / 2 - 32 * rows, x + side / 2 - 32 * columns))
    return np.median(found, axis=0)


def test_lites_cells_are_centred(lite):
    """Not what the pads say: they centre the kernels at 32 i + 31.5, and training undid it (decision 15)."""
    trunk = copy.deepcopy(lite.trunk)
    centred = centre_of_a_cell(trunk)
    strides = [m for m in trunk.modules() if getattr(m, "padding", 0) in ((0, 1, 0, 1), (1, 2, 1, 2))]
    assert len(strides) == 5
    strides[-1].padding = (2, 1, 2, 1)  # the kernels centred at 32 i + 15.5: the features half a cell off
    moved = centre_of_a_cell(trunk)
    assert np.abs(centred - 16).max() < 7
    assert np.abs(moved - 0).max() < 7


@torch.no_grad()
@pytest.mark.parametrize("size", [(224, 224), (352, 448), (448, 320)])
def test_lite_on_a_mirrored_photo(lite, size):
    data = pytest.importorskip("skimage.data")
    for name, least in (("chelsea", 0.93), ("coffee", 0.93)):
        photo = np.array(Image.fromarray(getattr(data, name)()).resize(size[::-1]))
        one, other = lite.encode_image(torch.from_numpy(np.stack([photo, photo[:, ::-1].copy()])))
        assert (one * other.flip(1)).sum(-1).mean() > least
