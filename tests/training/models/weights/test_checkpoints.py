import open_clip
import pytest
import torch
from torch import Tensor

from pixelclip_sdk import CheckpointError
from training.models.weights.checkpoints import load_into, pick_clip, read_checkpoint

OFFICIAL = "sem_seg_head.predictor.clip_model."
TEXT = {"context_length": 16, "vocab_size": 60, "width": 32, "heads": 2, "layers": 1}


def tiny(seed: int = 0, *, image_size: int = 64, layers: int = 2, width: int = 64) -> open_clip.CLIP:
    torch.manual_seed(seed)
    vision = {"image_size": image_size, "layers": layers, "width": width, "patch_size": 16}
    return open_clip.CLIP(32, vision, TEXT, quick_gelu=True).eval()


def tiny_convnext(seed: int = 0) -> open_clip.CLIP:
    torch.manual_seed(seed)
    vision = {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64}
    return open_clip.CLIP(32, vision, TEXT).eval()


def official(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys of the official checkpoints, by the modules of the official code."""
    teacher = {f"teacher_encoder.{k}": v for k, v in clip.items() if not k.startswith("transformer.")}
    return {
        "sem_seg_head.predictor.prompt_tokens": torch.zeros(64, 4, 32),
        **{OFFICIAL + key: value for key, value in clip.items()},
        **teacher,
        "head.conv0.weight": torch.zeros(64, 1, 3, 3),
        "head.up1.weight": torch.zeros(64, 64, 2, 2),
        "dino.cls_token": torch.zeros(1, 1, 384),
    }


def same_weights(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(model.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("make", [tiny, tiny_convnext])
@pytest.mark.parametrize("layout", ["open_clip", "distributed", "openai", "official"])
def test_every_layout_loads_the_same_weights(tmp_path, layout, make):
    source, model = make(1), make(2)
    state = {
        "open_clip": lambda clip: clip,
        "distributed": lambda clip: {"state_dict": {f"module.{k}": v for k, v in clip.items()}},
        "openai": lambda clip: clip | {"input_resolution": torch.tensor(64), "vocab_size": torch.tensor(60)},
        "official": lambda clip: {"model": official(clip), "iteration": 10_000},
    }[layout](source.state_dict())
    torch.save(state, tmp_path / "weights.pth")
    assert not same_weights(model, source)
    ignored = load_into(model, read_checkpoint(tmp_path / "weights.pth"), source="weights.pth")
    assert same_weights(model, source)
    if layout == "official":
        assert "sem_seg_head.predictor.prompt_tokens" in ignored
        assert "dino.cls_token" in ignored
    elif layout == "openai":
        assert ignored == ["input_resolution", "vocab_size"]
    else:
        assert ignored == []


def test_half_precision_becomes_single():
    source, model = tiny(1), tiny(2)
    state = {key: value.half() for key, value in source.state_dict().items()}
    load_into(model, state, source="x")
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].float())


def test_a_scale_of_one_element_is_a_scalar():
    state = tiny(1).state_dict()
    state["logit_scale"] = torch.tensor([4.5])
    model = tiny(2)
    load_into(model, state, source="x")
    assert model.logit_scale.shape == ()
    assert model.logit_scale.item() == 4.5


def test_positions_of_another_grid_keep_their_size():
    source, model = tiny(1, image_size=96), tiny(2, image_size=64)
    model.visual.positional_embedding.requires_grad_(False)
    load_into(model, source.state_dict(), source="x")
    assert torch.equal(model.visual.positional_embedding, source.visual.positional_embedding)
    assert isinstance(model.visual.positional_embedding, torch.nn.Parameter)
    assert not model.visual.positional_embedding.requires_grad
    assert not same_weights(tiny(2, image_size=96), source)
    state = source.state_dict()
    state["visual.positional_embedding"] = torch.ones(1 + 12, 64)
    with pytest.raises(CheckpointError, match=r"visual\.positional_embedding is 13×64, the model's is 37×64"):
        load_into(model, state, source="x")


def without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


def with_value(key, change):
    return lambda state: state | {key: change(state[key].clone())}


BIAS = "visual.ln_post.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(BIAS), r"1 missing: visual\.ln_post\.bias"),
        (lambda s: s | {"visual.extra": torch.ones(1)}, r"1 unexpected: visual\.extra"),
        (with_value(BIAS, lambda b: b[:-1]), r"1 invalid: visual\.ln_post\.bias is 63, the model's is 64"),
        (with_value(BIAS, lambda b: b.int()), r"visual\.ln_post\.bias is int32, not floating point"),
        (with_value(BIAS, lambda b: b / 0), r"visual\.ln_post\.bias has values that are not finite"),
        (with_value(BIAS, lambda b: b.half() + 1e5), r"visual\.ln_post\.bias has values that are not finite"),
        (
            lambda s: {k: v for k, v in s.items() if k.startswith("visual")},
            r"incomplete or damaged.*12 × transformer\.resblocks \(transformer\.resblocks\.0\.ln_1\.weight\)",
        ),
    ],
)
@pytest.mark.parametrize("layout", [lambda clip: clip, official])
def test_a_checkpoint_that_does_not_fit_changes_nothing(change, message, layout):
    model, before = tiny(2), tiny(2)
    with pytest.raises(CheckpointError, match=f"(?s){message}") as caught:
        load_into(model, layout(change(tiny(1).state_dict())), source="weights.pth")
    assert str(caught.value).startswith("weights.pth ")
    assert same_weights(model, before)


@pytest.mark.parametrize(
    ("source", "model", "message"),
    [
        (tiny_convnext, tiny, r"looks like a CLIP with a ConvNeXt; you asked for one with a ViT/16\. "),
        (tiny, tiny_convnext, r"looks like a CLIP with a ViT/16; you asked for one with a ConvNeXt\. "),
        (lambda: tiny(layers=3), tiny, r"another size.*12 unexpected: .* visual\.transformer"),
        (lambda: tiny(width=128), tiny, r"another size.* is 128, the model's is 64"),
    ],
)
def test_another_architecture_is_named(source, model, message):
    with pytest.raises(CheckpointError, match=f"(?s){message}"):
        load_into(model(), source().state_dict(), source="weights.pth")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "its keys are none"),
        (
            ["blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias"],
            r"2 × blocks\.0 \(blocks\.0\.attn\.qkv\.weight\)",
        ),
        (["vision_model.post_layernorm.weight"], "names are from the transformers library"),
        (["teacher_encoder.visual.proj"], "contains no known CLIP"),
    ],
)
def test_other_networks_are_refused(keys, message):
    with pytest.raises(CheckpointError, match=message):
        pick_clip({key: torch.ones(1) for key in keys}, source="weights.pth")


# The real sizes, by shapes alone


def full(architecture: str) -> open_clip.CLIP:
    with torch.device("meta"):  # besides the argument: else it is made on the CPU first
        return open_clip.create_model(architecture, pretrained=None, load_weights=False, device="meta")


def shapes(model: open_clip.CLIP) -> dict[str, Tensor]:
    """A state dict of these shapes with no memory behind it."""
    return {key: torch.zeros(()).expand(value.shape) for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def vit() -> open_clip.CLIP:
    return full("ViT-B-16")


@pytest.fixture(scope="module")
def convnext() -> open_clip.CLIP:
    return full("convnext_base_w_320")


def test_keys_of_the_full_models(vit, convnext):
    keys = shapes(vit)
    assert len(keys) == 302
    assert keys["visual.positional_embedding"].shape == (14 * 14 + 1, 768)
    assert keys["visual.transformer.resblocks.11.attn.in_proj_weight"].shape == (3 * 768, 768)
    assert keys["visual.proj"].shape == (768, 512)
    keys = shapes(convnext)
    assert len(keys) == 493
    assert keys["visual.trunk.head.norm.weight"].shape == (1024,)
    assert keys["visual.head.proj.weight"].shape == (640, 1024)
    for state in (shapes(vit), shapes(convnext)):
        picked, ignored = pick_clip(official(state), source="x")
        assert {key: value.shape for key, value in picked.items()} == {k: v.shape for k, v in state.items()}
        assert "dino.cls_token" in ignored


def test_the_full_models_are_told_apart(vit, convnext):
    with pytest.raises(CheckpointError, match=r"a ConvNeXt; .* for example pixelclip-convnext-b\."):
        load_into(vit, official(shapes(convnext)), source="pixelclip_convnext_base.pth")
    with pytest.raises(
        CheckpointError, match=r"a ViT/16; .* for example pixelclip-vit-b16 or clip-vit-b16\."
    ):
        load_into(convnext, shapes(vit), source="pixelclip_vit_base.pth")
