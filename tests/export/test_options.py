"""Invalid options of to_onnx.py are refused before a model is downloaded."""

from pathlib import Path

import open_clip
import pytest

from export.options import check_weights
from export.to_onnx import main

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "cat", "--classes", "dog"], "two vocabularies would be named 'classes'"),
        (["--classes", "cat", "--classes", "voc-20", "--name", "pets"], "works with one --classes"),
        (["--name", "pets"], "works with one --classes"),
    ],
)
def test_words_that_would_share_a_name_are_refused(tmp_path, capsys, arguments, message):
    assert main(["--model", "pixelclip-lite", *arguments, "--out", str(tmp_path / "b")]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "pixelclip-vit-b61"], "pixelclip-vit-b16"),
        (["--model", "pixelclip-light"], "pixelclip-lite"),
        (["--model", "open_clip:ViT-B-16/openia"], "ViT-B-16/openai"),
        (["--model", "pixelclip-vit-b16", "--checkpoint", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_models_that_are_not_there_are_refused(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ViT-H-14/laion2b_s32b_b79k", "image encoder of open_clip:ViT-H-14/laion2b_s32b_b79k has 2.5 GB"),
        ("ViT-bigG-14/laion2b_s39b_b160k", "7.4 GB"),
        ("convnext_xxlarge/laion2b_s34b_b82k_augreg", "3.4 GB"),
    ],
)
def test_models_too_large_for_a_file_are_refused_before_they_are_fetched(
    tmp_path, capsys, monkeypatch, model, message
):
    monkeypatch.setattr("training.models.weights.hub.fetch", None)
    assert main(["--model", f"open_clip:{model}", "--out", str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Take a smaller model" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("architecture", ["ViT-B-16", "ViT-L-14", "convnext_large_d_320"])
def test_models_that_fit_are_not_refused(architecture):
    tag = next(tag for name, tag in open_clip.list_pretrained() if name == architecture)
    check_weights(f"open_clip:{architecture}/{tag}")


def test_an_unexpected_error_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("torch failed")

    monkeypatch.setattr("export.to_onnx.load_model", fail)
    with pytest.raises(RuntimeError, match="torch failed"):
        main(["--model", "pixelclip-lite", "--out", str(tmp_path / "b")])


@pytest.mark.parametrize("model", ["pixelclip-lite", "pixelclip-vit-b16", "openclip-convnext-b"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input-size", "350", "449"], "height is 350; expected a positive multiple of "),
        (["--imgsz", "350", "449"], ", and width is 449; expected a positive multiple of "),
        (["--input-size", "0", "448"], "height is 0"),
        (["--photos", "nowhere"], "--photos: the folder nowhere does not exist"),
        (["--calibration", "nowhere"], "--calibration: the folder nowhere does not exist"),
        (["--calibration", str(ROOT / "export")], "--calibration: the folder"),
        (["--precision", "int8"], "--calibration DIR"),
        (
            ["--precision", "int8", "--calibration", str(PHOTOS), "--photos", str(PHOTOS)],
            "not those of --calibration",
        ),
        (["--classes", "voc-21"], "voc-20"),
        (["--classes", "nowhere.txt"], "nowhere.txt"),
        (["--classes", "cat", "--name", "My Pets"], "cannot be named 'My Pets'"),
        (["--batch", "0"], "--batch is 0"),
        (["--gate", "99.5"], "--gate is 99.5; expected a share"),
        (["--gate", "nan"], "--gate is nan"),
        (["--out", str(PHOTOS)], "exists and is not a bundle"),
    ],
)
def test_options_are_checked_before_the_model_is_fetched(
    tmp_path, capsys, monkeypatch, model, arguments, message
):
    def fetched(*_, **__):
        raise AssertionError("the model was fetched")

    monkeypatch.setattr("training.models.weights.hub.fetch", fetched)
    monkeypatch.setattr("training.models.lite.build.build_lite", fetched)
    assert main(["--model", model, "--out", str(tmp_path / "b"), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
