"""Export of seeded random weights in the official layout, compared with the reference implementation."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
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

from export.to_onnx import main
from export.to_trt import main as compile_engine
from pixelclip_sdk import Bundle, Vocabulary
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.engine import EngineInfo, engine_files
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.words.classes import class_list
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models import registry
from training.models.clip import build as clip
from training.models.load import load_model
from training.models.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
VOC_20 = [words[0] for words in class_list("voc-20").values()]
State = dict[str, torch.Tensor]


def official_checkpoint(path: Path, model: torch.nn.Module) -> State:
    """Write a model's weights as the official training code does, its other parts beside them."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    prefixed = {f"sem_seg_head.predictor.clip_model.{name}": value for name, value in state.items()}
    training = {
        "sem_seg_head.predictor.prompt_tokens": torch.randn(64, 4, 512),
        "teacher_encoder.visual.proj": torch.randn(4, 4),
        "head.conv0.weight": torch.randn(64, 1, 3, 3),
    }
    torch.save({"model": prefixed | training, "iteration": 9999}, path)
    return state


def seeded(name: str) -> torch.nn.Module:
    """The architecture of that name, with seeded random weights."""
    torch.manual_seed(0)
    return perturbed(clip.empty_model(registry.find(name)))


def shortened(spec: registry.Spec) -> torch.nn.Module:
    """The official model with all its widths and names, but few layers."""
    model = EMPTY_MODEL(spec)
    if spec.family == "vit":
        model.visual.transformer.resblocks = model.visual.transformer.resblocks[:2]
    else:
        for stage, depth in zip(model.visual.trunk.stages, SHORT, strict=True):
            stage.blocks = stage.blocks[:depth]
    model.transformer.resblocks = model.transformer.resblocks[:2]
    return model


EMPTY_MODEL = clip.empty_model
SHORT = (1, 1, 2, 1)


@torch.no_grad()
def check_texts(bundle: Bundle, state: State, layers: int, names: list[str], *, quick: bool) -> np.ndarray:
    """Each name's mean over the 8 templates: the bundle's against the reference's; returns these."""
    prompts = [template.format(name) for name in names for template in TEMPLATES]
    rows = open_clip.get_tokenizer("ViT-B-16")(prompts)
    # Attention is causal: what stands behind a text's end does not reach it.
    each = [reference_text(state, row[: row.argmax() + 1], layers, quick=quick) for row in rows]
    means = torch.stack(each).reshape(len(names), len(TEMPLATES), -1).mean(1)
    expected = (means / means.norm(dim=-1, keepdim=True)).numpy()
    found = Vocabulary.encode(names, TextEncoder(bundle))
    assert found.templates == TEMPLATES
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-4)
    return expected


@torch.no_grad()
def check_pictures(
    name: str, checkpoint: Path, bundle: Bundle, features: torch.Tensor, image: np.ndarray, text: np.ndarray
) -> None:
    """The tower alone on its 20×20 patches, then the bundle's logits and features on the grid of 64×64."""
    assert features.shape[:2] == (20, 20)
    tower = load_model(name, checkpoint=checkpoint).image.tower
    pixels = (torch.from_numpy(image) / 255 - MEAN) / STD
    torch.testing.assert_close(tower(pixels.permute(2, 0, 1)[None])[0], features, atol=1e-4, rtol=1e-4)
    with open_backend(bundle, "onnx") as backend:
        logits = backend.logits(image[None], text)[0]
    assert logits.shape == (len(text), 64, 64)
    np.testing.assert_allclose(logits, reference_logits(features, torch.from_numpy(text)).numpy(), atol=1e-4)


def picture(size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)


@pytest.fixture
def checkpoint(tmp_path) -> Iterator[Path]:
    yield tmp_path / "official.pth"
    for file in tmp_path.glob("*.pth"):
        file.unlink()  # Hundreds of megabytes.


@torch.no_grad()
def reference_features(name: str, state: State, image: np.ndarray, depths: tuple[int, ...]) -> torch.Tensor:
    pixels = torch.from_numpy(image)
    if "vit" in name:
        return reference_vit(state, pixels, 16, *depths)
    return reference_convnext(state, pixels, depths)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "size", "depths"),
    [("pixelclip-vit-b16", 320, (12,)), ("pixelclip-convnext-b", 640, (3, 3, 27, 3))],
)
def test_an_official_checkpoint_becomes_a_bundle_that_agrees_with_the_protocol(
    tmp_path, checkpoint, model, size, depths
):
    """At full size: file → command → bundle → words and logits → engine."""
    (official,) = (Path(file).name for file in registry.find(model).files)
    checkpoint = checkpoint.with_name(official)
    state = official_checkpoint(checkpoint, seeded(model))
    command = [sys.executable, str(ROOT / "export" / "to_onnx.py"), "--model", model]
    command += ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "bundle")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    bundle = Bundle.open(tmp_path / "bundle")
    assert (bundle.name, bundle.input.only_size, bundle.grid) == (model, (size, size), (64, 64))
    assert not bundle.input.keep_aspect
    image = picture(size)
    text = check_texts(bundle, state, 12, VOC_20, quick="vit" in model)
    check_pictures(model, checkpoint, bundle, reference_features(model, state, image, depths), image, text)

    pytest.importorskip("tensorrt_rtx", reason="no wheels for this machine")
    assert compile_engine(["--bundle", str(bundle.path), "--flavor", "tensorrt-rtx"]) == 0
    (plan,) = engine_files(bundle.path)
    info = EngineInfo.read(plan)
    assert info.precision == "fp32"
    info.check_bundle(plan, onnx_sha256=bundle.files[IMAGE_ENCODER]["sha256"], bundle=bundle.path)


@pytest.mark.parametrize(
    ("model", "size", "depths", "dim", "key"),
    [
        ("pixelclip-vit-b16", 320, (2,), 512, "visual.transformer.resblocks.1.attn.in_proj_weight"),
        pytest.param(
            *("pixelclip-convnext-b", 640, SHORT, 640, "visual.trunk.stages.2.blocks.1.gamma"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_official_layout(tmp_path, checkpoint, monkeypatch, capsys, model, size, depths, dim, key):
    """The same with few layers, which takes seconds: names, widths, head, protocol."""
    monkeypatch.setattr(clip, "empty_model", shortened)
    state = official_checkpoint(checkpoint, seeded(model))
    assert key in state
    out = tmp_path / "bundle"
    photos = ["--photos", str(ROOT / "examples" / "photos")]  # Fewer than by default, to save time.
    assert main(["--model", model, "--checkpoint", str(checkpoint), "--out", str(out), *photos]) == 0
    bundle = Bundle.open(out)
    # The file does not have the official name, so it may hold other weights.
    assert bundle.name == f"{model}+official"
    assert [source["file"] for source in bundle.sources] == ["official.pth"]
    error = capsys.readouterr().err
    assert f"the weights are those of {checkpoint}, not of {model}" in error
    assert f"verified {model}+official (fp32) against its source" in error
    assert (bundle.input.only_size, bundle.grid, bundle.embedding_dim) == ((size, size), (64, 64), dim)
    text, image = check_texts(bundle, state, 2, VOC_20[:4], quick="vit" in model), picture(size)
    check_pictures(model, checkpoint, bundle, reference_features(model, state, image, depths), image, text)
