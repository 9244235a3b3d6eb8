"""What to_onnx.py refuses, and that it does so before it fetches a model."""

from pathlib import Path

import pytest

from export.to_onnx import main

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--classes", "cat", "--classes", "dog"], "two vocabularies would be called 'classes'"),
        (["--classes", "cat", "--classes", "voc-20", "--name", "pets"], "goes with one --classes"),
        (["--name", "pets"], "goes with one --classes"),
    ],
)
def test_words_that_would_share_a_name_are_refused(tmp_path, capsys, arguments, said):
    assert main(["--model", "pixelclip-lite", *arguments, "--out", str(tmp_path / "b")]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "pixelclip-vit-b61"], "pixelclip-vit-b16"),
        (["--model", "pixelclip-light"], "pixelclip-lite"),
        (["--model", "open_clip:ViT-B-16/openia"], "ViT-B-16/openai"),
        (["--model", "pixelclip-vit-b16", "--checkpoint", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_models_that_are_not_there_are_refused(tmp_path, capsys, arguments, said):
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", ["pixelclip-lite", "pixelclip-vit-b16", "openclip-convnext-b"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--imgsz", "350", "449"], "height is 350; expected a positive multiple of "),
        (["--imgsz", "350", "449"], ", and width is 449; expected a positive multiple of "),
        (["--imgsz", "0", "448"], "height is 0"),
        (["--photos", "nowhere"], "--photos: nowhere is no folder"),
        (["--calibration", "nowhere"], "--calibration: nowhere is no folder"),
        (["--calibration", str(ROOT / "export")], "--calibration: there are no photos in"),
        (["--precision", "int8"], "--calibration DIR"),
        (["--precision", "int8", "--calibration", str(PHOTOS)], "not those of --calibration"),
        (["--classes", "voc-21"], "voc-20"),
        (["--classes", "nowhere.txt"], "nowhere.txt"),
        (["--batch", "0"], "--batch is 0"),
    ],
)
def test_options_are_checked_before_the_model_is_fetched(
    tmp_path, capsys, monkeypatch, model, arguments, said
):
    def fetched(*_, **__):
        raise AssertionError("the model was fetched")

    monkeypatch.setattr("training.encoders.hub.fetch", fetched)
    monkeypatch.setattr("training.encoders.lite.build_lite", fetched)
    assert main(["--model", model, *arguments, "--out", str(tmp_path / "b")]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
