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
from pixelclip_sdk.words.classes import class_list


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of photos: to calibrate on, and others to verify on."""
    folders = tmp_path_factory.mktemp("calibration"), tmp_path_factory.mktemp("photos")
    for index, photo in enumerate(default_photos()):
        shutil.copy(photo, folders[index < 3])
    return folders


TYPED = ["--classes", "cat, sofa"]


# The scores of random weights are close to each other, so int8 gets a lower gate.
@pytest.mark.parametrize(
    ("model", "precision", "gate", "classes", "vocabulary"),
    [
        ("tiny", "fp16", [], TYPED, "classes"),
        ("tiny", "int8", ["--gate", "0.6"], [*TYPED, "--name", "pets"], "pets"),
        ("pixelclip-lite-start", "fp16", [], ["--classes", "voc-20"], "voc-20"),
        pytest.param(
            *("pixelclip-lite", "int8", ["--gate", "0.7"], ["--classes", "voc-20"], "voc-20"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_from_weights_to_an_engine(
    request, tiny_options, photos, tmp_path, capsys, monkeypatch, model, precision, gate, classes, vocabulary
):
    source = tiny_options if model == "tiny" else ["--model", model]
    if model == "pixelclip-lite-start":  # Tracing this model takes long, so share the graph with other tests.
        graph = request.getfixturevalue("lite_onnx")
        monkeypatch.setattr("export.to_onnx.trace_image_encoder", lambda *_, **__: graph)
    out = tmp_path / "bundle"
    calibration, unseen = photos
    given = ["--precision", precision, "--calibration", str(calibration), "--photos", str(unseen), *gate]
    assert main([*source, *given, *classes, "--out", str(out)]) == 0
    error = capsys.readouterr().err
    bundle = Bundle.open(out)
    bundle.verify()
    report, layers = bundle.verification, bundle.verification["layers"]
    assert (bundle.name, bundle.precision) == (model, precision)
    assert report["photos"] == len(list(unseen.iterdir())) == 3
    assert report["label_agreement"] >= report["gate"]
    assert list(bundle.vocabularies) == [vocabulary]
    assert 0.7 * layers["total"] < layers["converted"] <= layers["total"]
    assert layers["fp32"]
    assert f"{layers['converted']} of {layers['total']} layers compute in {precision}" in error
    names = ("cat", "sofa") if model == "tiny" else tuple(class_list("voc-20"))
    with Segmenter.from_pretrained(out, classes=vocabulary) as segmenter:
        assert tuple(segmenter.predict(next(unseen.iterdir())).names) == names

    if model == "tiny":  # Building the others again takes long.
        again = ["--bundle", str(out), *source[:4], "--photos", str(unseen), *gate]
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
