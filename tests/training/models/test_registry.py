import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

from pixelclip_sdk import CheckpointError, ModelNotFoundError
from training.models.registry import LITE, LITE_START, Spec, find, names


def test_the_names_of_the_design():
    assert names() == [
        "clip-vit-b16",
        "openclip-convnext-b",
        "pixelclip-convnext-b",
        "pixelclip-convnext-b-dino",
        "pixelclip-lite",
        "pixelclip-lite-start",
        "pixelclip-vit-b16",
        "pixelclip-vit-b16-dino",
    ]
    assert all(find(name).name == name for name in names() if name not in (LITE, LITE_START))


@pytest.mark.parametrize(
    ("name", "file", "family"),
    [
        ("pixelclip-vit-b16", "pixelclip_vit_base", "vit"),
        ("pixelclip-vit-b16-dino", "pixelclip_vit_base_dino", "vit"),
        ("pixelclip-convnext-b", "pixelclip_convnext_base", "convnext"),
        ("pixelclip-convnext-b-dino", "pixelclip_convnext_base_dino", "convnext"),
    ],
)
def test_the_official_checkpoints_start_from_the_baselines(name, file, family):
    spec = find(name)
    assert spec.repository == "hsshin98/PixelCLIP"
    assert spec.files == (f"weights/{file}.pth",)
    assert spec.license == "MIT"
    baseline = find("clip-vit-b16" if family == "vit" else "openclip-convnext-b")
    assert spec.family == baseline.family == family
    assert spec.architecture == baseline.architecture
    assert spec.quick_gelu == baseline.quick_gelu


def test_the_baselines():
    assert find("clip-vit-b16") == Spec(
        name="clip-vit-b16",
        family="vit",
        architecture="ViT-B-16",
        quick_gelu=True,
        repository="timm/vit_base_patch16_clip_224.openai",
        files=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
        license="MIT",
    )
    spec = find("openclip-convnext-b")
    assert spec.architecture == "convnext_base_w_320"
    assert spec.repository == "laion/CLIP-convnext_base_w_320-laion_aesthetic-s13B-b82K"
    assert not spec.quick_gelu


@pytest.mark.parametrize(
    ("key", "quick_gelu", "license_"),
    [
        ("ViT-B-16/openai", True, "MIT"),
        ("ViT-B-16-quickgelu/openai", True, "MIT"),
        ("ViT-B-16/laion2b_s34b_b88k", False, "MIT"),
        ("ViT-L-14/metaclip_400m", True, "NOASSERTION"),
        ("ViT-H-14/laion2b-s32b-b79k", False, "MIT"),  # open_clip takes dashes in tags
        ("convnext_large_d/laion2b_s26b_b102k_augreg", False, "MIT"),
    ],
)
def test_any_vit_or_convnext_of_open_clip(key, quick_gelu, license_):
    spec = find(f"open_clip:{key}")
    assert spec.name == f"open_clip:{key}"
    assert spec.architecture == key.partition("/")[0]
    assert spec.quick_gelu is quick_gelu
    assert spec.license == license_
    assert spec.files[0] == "open_clip_model.safetensors"


def test_every_model_found_can_be_made():
    """Each resolves to a plain CLIP: one the dense encoders and the strict loading are written for."""
    found = {}
    for architecture, tag in open_clip.list_pretrained():
        try:
            spec = find(f"open_clip:{architecture}/{tag}")
        except CheckpointError:
            continue
        assert spec.repository.count("/") == 1
        found[spec.architecture] = spec
    assert {"ViT-B-16", "ViT-B-32", "ViT-L-14", "ViT-H-14", "ViT-bigG-14", "convnext_base"} <= found.keys()
    for spec in found.values():
        with torch.device("meta"):
            model = open_clip.create_model(
                spec.architecture,
                pretrained=None,
                load_weights=False,
                force_quick_gelu=spec.quick_gelu,
                device="meta",
            )
        assert type(model) is open_clip.CLIP
        assert hasattr(model.visual, "trunk" if spec.family == "convnext" else "positional_embedding")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pixelclip-vitb16", "no model 'pixelclip-vitb16'. Did you mean 'pixelclip-vit-b16'?"),
        ("", "no model ''. Expected open_clip:NAME/TAG or one of: clip-vit-b16, "),
        (
            "open_clip:ViT-B-16/opnai",
            "open_clip has no weights 'ViT-B-16/opnai'. Did you mean 'ViT-B-16/openai'?",
        ),
        ("open_clip:ViT-B-16", "Expected open_clip:NAME/TAG, for example open_clip:ViT-B-16/openai"),
        ("open_clip:", "open_clip has no weights ''"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ModelNotFoundError) as caught:
        find(name)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "RN50/openai",
        "ViT-B-16-SigLIP/webli",
        "ViT-L-14-CLIPA/datacomp1b",
        "coca_ViT-B-32/laion2b_s13b_b90k",
        "roberta-ViT-B-32/laion2b_s12b_b32k",
        "EVA02-B-16/merged2b_s8b_b131k",
    ],
)
def test_towers_of_another_kind(key):
    with pytest.raises(CheckpointError, match="there is no dense encoder for"):
        find(f"open_clip:{key}")


def test_weights_on_no_hub(monkeypatch):
    """None of open_clip 3.3's ViT and ConvNeXt entries has only an address; an older one did."""
    entry = {"url": "https://example.org/weights.pt", "hf_hub": ""}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["ViT-B-32"], "by_hand", entry)
    with pytest.raises(CheckpointError, match=r"only at https://example\.org/weights\.pt\. .* --checkpoint"):
        find("open_clip:ViT-B-32/by_hand")


def test_every_tag_is_normalised_as_open_clip_does():
    """What open_clip itself would build its preprocessing of, for each tag that is taken."""
    clips = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    others, taken = {}, 0
    for architecture, tag in open_clip.list_pretrained():
        try:
            spec = find(f"open_clip:{architecture}/{tag}")
        except CheckpointError:
            continue
        taken += 1
        config = merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(architecture, tag))
        transform = image_transform_v2(PreprocessCfg(**config), is_train=False).transforms[-1]
        assert (spec.mean, spec.std) == (tuple(transform.mean), tuple(transform.std))
        if (spec.mean, spec.std) != clips:
            others[f"{architecture}/{tag}"] = spec.mean, spec.std
    assert taken > 80
    assert others == {"ViT-L-14/laion2b_s32b_b82k": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}


@pytest.mark.parametrize(
    ("name", "stride"),
    [("pixelclip-vit-b16", 16), ("pixelclip-convnext-b", 32), ("open_clip:ViT-L-14/openai", 14)],
)
def test_strides(name, stride):
    assert find(name).stride == stride
