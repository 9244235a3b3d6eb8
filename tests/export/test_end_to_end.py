"""The commands in the order of their use: export, verify, compile."""

import shutil
from pathlib import Path

import pytest

from export import verify
from export.options import default_photos
from export.to_onnx import main
from export.to_trt import main as compile_engine
from pixelclip_sdk import Bundle, Segmenter
from pixelclip_sdk.backends.engine import EngineInfo, engine_files


@pytest.mark.parametrize(("name", "expected"), [([], "classes"), (["--name", "pets"], "pets")])
def test_words_typed_on_the_command_line_are_embedded(tiny_options, tmp_path, name, expected):
    out = tmp_path / "bundle"
    assert main([*tiny_options, "--classes", "cat, sofa", *name, "--out", str(out)]) == 0
    assert list(Bundle.open(out).vocabularies) == [expected]
    with Segmenter.from_pretrained(out, classes=expected) as segmenter:
        assert list(segmenter.vocabulary.names) == ["cat", "sofa"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of photos: to calibrate on, and others to verify on."""
    folders = tmp_path_factory.mktemp("calibration"), tmp_path_factory.mktemp("photos")
    for index, photo in enumerate(default_photos()):
        shutil.copy(photo, folders[index < 3])
    return folders


# The scores of random weights are close to each other, so int8 gets a lower gate.
@pytest.mark.parametrize(
    ("model", "precision", "options"),
    [
        ("tiny", "fp16", []),
        ("tiny", "int8", ["--gate", "0.6"]),
        ("pixelclip-lite", "fp16", []),
        pytest.param("pixelclip-lite", "int8", ["--gate", "0.7"], marks=pytest.mark.slow),
    ],
)
def test_from_weights_to_an_engine(tiny_options, photos, tmp_path, capsys, model, precision, options):
    source = tiny_options if model == "tiny" else ["--model", model]
    out = tmp_path / "bundle"
    calibration, unseen = photos
    given = ["--precision", precision, "--calibration", str(calibration), "--photos", str(unseen), *options]
    assert main([*source, *given, "--classes", "voc-20", "--out", str(out)]) == 0
    error = capsys.readouterr().err
    bundle = Bundle.open(out)
    bundle.verify()
    report, layers = bundle.verification, bundle.verification["layers"]
    assert (bundle.name, bundle.precision) == (model, precision)
    assert report["photos"] == len(list(unseen.iterdir())) == 3
    assert report["label_agreement"] >= report["gate"]
    assert list(bundle.vocabularies) == ["voc-20"]
    assert 0.7 * layers["total"] < layers["converted"] <= layers["total"]
    assert layers["fp32"]
    assert f"{layers['converted']} of {layers['total']} layers compute in {precision}" in error
    with Segmenter.from_pretrained(out, classes="voc-20") as segmenter:
        assert len(segmenter.predict(next(unseen.iterdir())).names) == 20

    if model == "tiny":  # Building the others again takes long.
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


def test_a_bundle_of_another_model_is_refused(tiny_options, capsys):
    assert verify.main(["--bundle", "pixelclip-lite", *tiny_options[:4]]) == 1
    assert "name the model that it was exported from" in capsys.readouterr().err
