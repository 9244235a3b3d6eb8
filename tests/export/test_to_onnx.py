import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.options import default_photos
from pixelclip_sdk import Bundle, Segmenter
from pixelclip_sdk.words.classes import class_list
from pixelclip_sdk.words.text_encoder import TextEncoder

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "pixelclip_sdk" / "assets" / "pixelclip-lite"
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))


def export(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run the documented command, from another folder."""
    command = [sys.executable, str(ROOT / "export" / "to_onnx.py"), "--model", "pixelclip-lite", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The bundle as the documented command builds it."""
    out = tmp_path_factory.mktemp("export") / "bundle"
    result = export("--out", str(out), cwd=out.parent)
    assert result.returncode == 0, result.stderr
    return out


def weights(bundle: Bundle) -> dict[str, np.ndarray]:
    graph = onnx.load(bundle.file("image_encoder.onnx")).graph
    return {weight.name: numpy_helper.to_array(weight).astype(np.float32) for weight in graph.initializer}


def test_the_command_builds_the_bundle_that_ships(exported):
    """Equal up to rounding: processors add numbers in different orders."""
    shipped, built = Bundle.open(SHIPPED), Bundle.open(exported)
    built.verify()
    ignored = dict.fromkeys(("files", "verification", "confidence"))
    assert {**built.manifest(), **ignored} == {**shipped.manifest(), **ignored}
    assert built.files["tokenizer.json"] == shipped.files["tokenizer.json"]
    texts = [built.templates[0].format(name) for name in class_list("common-150")]
    rows = [TextEncoder(bundle).encode(texts) for bundle in (built, shipped)]
    assert (rows[0] * rows[1]).sum(axis=1).min() > 0.999
    ours, other = weights(built), weights(shipped)
    assert ours.keys() == other.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(values, other[name], rtol=0.02, atol=0.02 * np.abs(values).max())
    for name in ("ridge.int8", "ridge.scale.fp16", "ridge_bias"):  # These are read from the shipped bundle.
        np.testing.assert_array_equal(ours[name], other[name])
    with Segmenter.from_pretrained(built.path) as one, Segmenter.from_pretrained(shipped.path) as other:
        for photo in PHOTOS:
            assert (one.features(photo) * other.features(photo)).sum(axis=-1).min() > 0.9999


def test_nothing_of_the_machine_is_in_the_files(exported):
    for name in ("image_encoder.onnx", "text_encoder.onnx", "bundle.json"):
        content = (exported / name).read_bytes()
        for trace in (b"site-packages", b"/home/", b"/root/", str(ROOT).encode(), b"stack_trace"):
            assert trace not in content, f"{name} holds {trace!r}"


def test_the_report_is_in_the_bundle(exported):
    bundle = Bundle.open(exported)
    assert bundle.refine == "edges"
    report = bundle.verification
    assert report["photos"] == len(default_photos()) == 7
    assert report["label_agreement"] >= report["gate"]
    assert 0 < report["logits_max_difference"] < 0.05


@pytest.mark.slow
def test_an_export_below_the_gate_leaves_no_bundle(tmp_path):
    result = export("--out", str(tmp_path / "b"), "--gate", "1.1", cwd=tmp_path)
    assert result.returncode == 1
    assert "agrees with its source" in result.stderr
    assert list(tmp_path.iterdir()) == []
