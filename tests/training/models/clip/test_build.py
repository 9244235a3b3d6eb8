"""The dense encoders against the plain reference."""

import copy

import open_clip
import pytest
import torch
from clip_reference import (
    MEAN,
    STD,
    perturbed,
    reference_convnext,
    reference_logits,
    reference_text,
    reference_vit,
)
from torch.nn import functional as F

from export.graph.lean import LeanImageEncoder
from pixelclip_sdk import CheckpointError
from training.models.clip.build import build_clip
from training.models.clip.convnext import DenseConvNeXt
from training.models.clip.text import ClipTextEncoder
from training.models.clip.tokenizer import END_OF_TEXT
from training.models.clip.vit import DenseViT
from training.models.dense import DenseImageEncoder, grid_size
from training.models.load import load_model

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}
VIT = {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16}
CONVNEXT = {"timm_model_name": "convnext_atto", "timm_pool": "", "timm_proj": "linear", "image_size": 64}


@pytest.fixture(scope="module")
def vit():
    return perturbed(open_clip.CLIP(32, VIT, {**TEXT, "width": 128}, quick_gelu=True))


@pytest.fixture(scope="module")
def convnext():
    return perturbed(open_clip.CLIP(32, CONVNEXT, {**TEXT, "width": 128}))


@pytest.fixture
def image():
    return torch.randint(
        0, 256, (2, 96, 160, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


@torch.no_grad()
def test_the_vit_equals_the_reference(vit, image):
    found = DenseImageEncoder(DenseViT(vit.visual)).eval()
    features = found.tower((image.permute(0, 3, 1, 2) / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1))
    for one, picture in zip(features, image, strict=True):
        expected = reference_vit(vit.state_dict(), picture, 16, 3)
        torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_pixels_are_normalised_as_the_weights_were_trained(vit, tmp_path, monkeypatch):
    """A tag of open_clip with a mean of its own, by its name: in PyTorch and in the exported graph."""
    torch.save(vit.state_dict(), tmp_path / "weights.pth")
    monkeypatch.setattr("training.models.clip.build.empty_model", lambda _: copy.deepcopy(vit))
    name = "open_clip:ViT-L-14/laion2b_s32b_b82k"
    size = (112, 224)  # multiples of 14, the model's patch, and of 16, the stand-in's
    encoder = load_model(name, checkpoint=tmp_path / "weights.pth", input_size=size).image
    image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8)
    half = torch.full((3,), 0.5)
    features = reference_vit(vit.state_dict(), image[0], 16, 3, half, half).permute(2, 0, 1)[None]
    features = F.interpolate(features, (64, 128), mode="bilinear")[0].permute(1, 2, 0)
    for each in (encoder, LeanImageEncoder(encoder, size).eval()):
        found = each(image, torch.eye(32))[1][0]
        torch.testing.assert_close(found, F.normalize(features, dim=-1), atol=1e-5, rtol=0)
    assert float(encoder.mean.mean()) == 127.5


@torch.no_grad()
def test_the_convnext_equals_the_reference(convnext, image):
    tower = DenseConvNeXt(convnext.visual)
    features = tower((image.permute(0, 3, 1, 2) / 255 - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1))
    for one, picture in zip(features, image, strict=True):
        expected = reference_convnext(convnext.state_dict(), picture, (2, 2, 6, 2))
        torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "convnext"])
def test_the_logits_equal_the_reference(request, family):
    model = request.getfixturevalue(family)
    state = model.state_dict()
    image = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8)
    text = F.normalize(torch.randn(5, 32), dim=-1)
    if family == "vit":
        encoder, features = DenseViT(model.visual), reference_vit(state, image[0], 16, 3)
    else:
        encoder, features = DenseConvNeXt(model.visual), reference_convnext(state, image[0], (2, 2, 6, 2))
    logits, unit = DenseImageEncoder(encoder).eval()(image, text)
    assert logits.shape == (1, 5, 64, 64)
    assert unit.shape == (1, 64, 64, 32)
    torch.testing.assert_close(logits[0], reference_logits(features, text), atol=1e-5, rtol=0)
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(1, 64, 64), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "convnext"])
def test_text_embeddings_do_not_depend_on_padding(request, family):
    model = request.getfixturevalue(family)
    encoder = ClipTextEncoder(model).eval()
    ids = open_clip.get_tokenizer("ViT-B-16")(
        ["a photo of a cat.", "", "art of the traffic light, 3 of them"]
    )
    found = encoder(ids)
    torch.testing.assert_close(encoder(ids[:, :20]), found, atol=1e-6, rtol=0)
    for one, row in zip(found, ids, strict=True):
        expected = reference_text(model.state_dict(), row, 3, quick=family == "vit")
        torch.testing.assert_close(one, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_positions_are_kept_where_the_grid_is_the_trained_one(vit):
    tower = DenseViT(vit.visual)
    assert tower.positions(4, 4) is vit.visual.positional_embedding
    assert tower.positions(5, 9).shape == (46, 128)


def test_gradients_reach_attention_and_positions_but_not_the_last_q_and_k(vit, image):
    tower = DenseViT(vit.visual)
    tower(image[:1].permute(0, 3, 1, 2) / 255).sum().backward()
    last = vit.visual.transformer.resblocks[-1].attn.in_proj_weight.grad
    assert (last[: 2 * 128] == 0).all()
    assert (last[2 * 128 :] != 0).any()
    assert (vit.visual.positional_embedding.grad != 0).any()
    vit.zero_grad()


def test_the_grid_of_a_square_is_the_protocol_s():
    assert grid_size(20, 20) == (64, 64)
    assert grid_size(20, 40) == (64, 128)
    assert grid_size(21, 28) == (64, 85)
    assert grid_size(28, 21) == (85, 64)


def test_texts_are_truncated_to_the_tower():
    short = open_clip.CLIP(32, VIT, {**TEXT, "width": 128, "context_length": 16})
    pair = build_clip("short", short)
    ids = pair.tokenizer.encode("many many words " * 20).ids
    assert len(ids) == 16
    assert ids[-1] == END_OF_TEXT
    assert pair.text(torch.tensor([ids])).shape == (1, 32)
    small = open_clip.CLIP(32, VIT, {**TEXT, "width": 128, "vocab_size": 1000})
    with pytest.raises(CheckpointError, match=r"has 1000 tokens; expected 49408"):
        build_clip("small", small)


def test_unsupported_towers_are_refused(vit):
    with pytest.raises(ValueError, match="ConvNeXt"):
        DenseConvNeXt(vit.visual)
    pooled = open_clip.CLIP(32, {**VIT, "attentional_pool": True}, TEXT)
    with pytest.raises(ValueError, match="expected CLIP's vision"):
        DenseViT(pooled.visual)
    last = open_clip.CustomTextCLIP(32, VIT, {**TEXT, "pool_type": "last"})
    with pytest.raises(ValueError, match="end-of-text"):
        ClipTextEncoder(last)
