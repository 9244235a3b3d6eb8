"""The commands one after the other, as somebody types them: export, verify, compile."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from clip_reference import perturbed

from export import verify
from export.photos import default_photos
from export.to_onnx import main
from export.to_trt import main as compile_engine
from pixelclip_sdk import Bundle, Segmenter
from pixelclip_sdk.backends.engine import EngineInfo, engine_files

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The arguments that name a tiny model: somebody's own configuration and checkpoint."""
    model = perturbed(open_clip.CLIP(32, VIT, TEXT, quick_gelu=True))
    folder = tmp_path_factory.mktemp("own")
    content = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT}
    (folder / "tiny.json").write_text(json.dumps(content))
    torch.save(model.state_dict(), folder / "tiny.pth")
    return [
        *("--model", str(folder / "tiny.json"), "--checkpoint", str(folder / "tiny.pth")),
        *("--imgsz", "64", "64"),
    ]


@pytest.mark.parametrize(("name", "expected"), [([], "classes"), (["--name", "pets"], "pets")])
def test_words_typed_on_the_command_line_are_embedded(tiny, tmp_path, name, expected):
    out = tmp_path / "bundle"
    assert main([*tiny, "--classes", "cat, sofa", *name, "--out", str(out)]) == 0
    assert list(Bundle.open(out).vocabularies) == [expected]
    with Segmenter.from_pretrained(out, classes=expected) as segmenter:
        assert segmenter.vocabulary.names == ["cat", "sofa"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of photos: to calibrate on, and others to verify on."""
    folders = tmp_path_factory.mktemp("calibration"), tmp_path_factory.mktemp("photos")
    for index, photo in enumerate(default_photos()):
        shutil.copy(photo, folders[index < 3])
    return folders


# Random weights: their labels are close calls, so that int8 is asked for less than of real ones.
@pytest.mark.parametrize(
    ("model", "precision", "options"),
    [
        ("tiny", "fp16", []),
        ("tiny", "int8", ["--gate", "0.6"]),
        ("pixelclip-lite", "fp16", []),
        pytest.param("pixelclip-lite", "int8", ["--gate", "0.7"], marks=pytest.mark.slow),
    ],
)
def test_from_weights_to_an_engine(tiny, photos, tmp_path, capsys, model, precision, options):
    source = tiny if model == "tiny" else ["--model", model]
    out = tmp_path / "bundle"
    calibration, unseen = photos
    given = ["--precision", precision, "--calibration", str(calibration), "--photos", str(unseen), *options]
    assert main([*source, *given, "--classes", "voc-20", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    bundle = Bundle.open(out)
    bundle.verify()
    report, layers = bundle.verification, bundle.verification["layers"]
    assert (bundle.name, bundle.precision) == (model, precision)
    assert report["photos"] == len(list(unseen.iterdir())) == 3
    assert report["label_agreement"] >= report["gate"]
    assert list(bundle.vocabularies) == ["voc-20"]
    assert 0.7 * layers["total"] < layers["converted"] <= layers["total"]
    assert layers["fp32"]
    assert f"{layers['converted']} of {layers['total']} layers compute in {precision}" in said
    with Segmenter.from_pretrained(out, classes="voc-20") as segmenter:
        assert len(segmenter.predict(next(unseen.iterdir())).names) == 20

    # The same question asked again, and of another model.
    again = ["--bundle", str(out), *source[:4], "--photos", str(unseen), *options]
    assert verify.main(again) == 0
    assert verify.main([*again, "--gate", "1.1"]) == 1
    assert "expected a share" in capsys.readouterr().err

    pytest.importorskip("tensorrt_rtx", reason="no wheels for this machine")
    assert compile_engine(["--bundle", str(out), "--flavor", "tensorrt-rtx"]) == 0
    (plan,) = engine_files(out)
    info = EngineInfo.read(plan)
    assert info.precision == precision
    assert f"computes in {precision}" in capsys.readouterr().out


def test_a_bundle_of_another_model_is_told_apart(tiny, capsys):
    assert verify.main(["--bundle", "pixelclip-lite", *tiny[:4]]) == 1
    assert "name the model that it was exported from" in capsys.readouterr().err
