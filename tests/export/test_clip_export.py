"""Export of a tiny CLIP, by functions and by the command."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from clip_reference import reference_text, reference_vit

from export.to_onnx import export_bundle, main
from pixelclip_sdk import BundleError, PixelClipError, Segmenter
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.words.classes import class_list
from training.models.clip.build import build_clip
from training.models.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
PHOTOS = sorted((ROOT / "examples" / "photos").glob("*.jpg"))
VOC_20 = [words[0] for words in class_list("voc-20").values()]


@pytest.fixture(scope="module")
def wide(tiny, tmp_path_factory):
    """A bundle for two images of 96×160 pixels at once, with two vocabularies."""
    out = tmp_path_factory.mktemp("wide") / "bundle"
    pair = build_clip("tiny", tiny, input_size=(96, 160))
    return export_bundle(
        pair, out, precision="fp32", photos=PHOTOS, batch=2, classes={"pets": "cat, sofa", "voc-20": "voc-20"}
    )


def test_a_size_that_is_not_square_keeps_the_aspect(wide, tiny):
    assert (wide.input.height, wide.input.width) == (96, 160)
    assert wide.input.keep_aspect
    assert wide.grid == (64, 107)
    image = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), np.uint8)
    with open_backend(wide, "onnx") as backend:
        features = backend.features(image)
    expected = reference_vit(tiny.state_dict(), torch.from_numpy(image[0]), 16, 3)
    fine = torch.nn.functional.interpolate(expected.permute(2, 0, 1)[None], (64, 107), mode="bilinear")[0]
    expected = torch.nn.functional.normalize(fine.permute(1, 2, 0), dim=-1)
    np.testing.assert_allclose(features[0], expected.numpy(), atol=1e-5)


def test_a_fixed_batch_serves_any_number_of_pictures(wide):
    images = np.random.default_rng(0).integers(0, 256, (5, 96, 160, 3), np.uint8)
    text = np.eye(3, 32, dtype=np.float32)
    with open_backend(wide, "onnx") as backend:
        together = backend.logits(images, text)
        for image, expected in zip(images, together, strict=True):
            np.testing.assert_allclose(backend.logits(image[None], text)[0], expected, atol=1e-5)


def test_the_words_change_without_a_new_export(wide, photo):
    with Segmenter.from_pretrained(wide.path, classes=["cat", "dog"]) as segmenter:
        first = segmenter.predict(photo)
        segmenter.set_classes(["cat", "dog", "sofa", "grass"])
        second = segmenter.predict(photo)
    assert first.labels.shape == second.labels.shape == photo.shape[:2]
    assert len(second.names) == 4


def test_vocabularies_are_embedded_with_the_templates(wide, tiny):
    with Segmenter.from_pretrained(wide.path, classes="voc-20") as segmenter:
        vocabulary = segmenter.vocabulary
    assert vocabulary.templates == TEMPLATES
    assert len(vocabulary) == 20
    words = vocabulary.synonyms[vocabulary.names[1]]
    texts = [template.format(word) for word in words for template in TEMPLATES]
    rows = open_clip.get_tokenizer("ViT-B-16")(texts)
    with torch.no_grad():
        each = torch.stack([reference_text(tiny.state_dict(), row, 2, quick=True) for row in rows])
    expected = torch.nn.functional.normalize(each.mean(0), dim=0)
    np.testing.assert_allclose(vocabulary.embeddings[1], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((90, 160), "height is 90; expected a positive multiple of 16, for example 80 or 96"),
        ((96, 161), "width is 161; expected a positive multiple of 16, for example 160 or 176"),
        ((90, 161), "80 or 96, and width is 161; expected a positive multiple of 16, for example 160 or 176"),
    ],
)
def test_odd_sizes_are_refused_with_the_nearest(tiny, size, message):
    with pytest.raises(BundleError, match=message):
        build_clip("tiny", tiny, input_size=size)


def test_the_manifest_has_the_verification_report(wide):
    manifest = json.loads((wide.path / "bundle.json").read_text())
    report = manifest["verification"]
    assert report["label_agreement"] >= report["gate"] == 0.999
    assert report["features_cosine"] > 0.9999
    assert manifest["precision"] == "fp32"


def test_a_bundle_without_its_text_encoder_knows_its_words(tiny, tmp_path, photo):
    pair = build_clip("tiny", tiny, input_size=(64, 64))
    words = {"pets": "cat, sofa"}
    bundle = export_bundle(
        pair, tmp_path / "b", precision="fp32", photos=PHOTOS[:1], classes=words, text_encoder=False
    )
    bundle.verify()
    there = {str(file.relative_to(bundle.path)) for file in bundle.path.rglob("*") if file.is_file()}
    assert there == {"bundle.json", "image_encoder.onnx", "vocabularies/pets.npz"}
    with Segmenter.from_pretrained(bundle.path, classes="pets") as segmenter:
        assert list(segmenter.predict(photo).names) == ["cat", "sofa"]
        with pytest.raises(BundleError, match="no text encoder"):
            segmenter.set_classes("dog, sofa")


def test_words_that_cannot_be_used_are_refused_before_weights_are_read(tmp_path, capsys):
    command = ["--model", "pixelclip-vit-b16", "--checkpoint", str(tmp_path / "none"), "--out", str(tmp_path)]
    assert main([*command, "--classes", "cat, Cat"]) == 1
    assert "repeated" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "--no-text-encoder"])
    assert "needs classes; give --classes" in capsys.readouterr().err


def test_int8_without_calibration_photos_is_refused(tiny, tmp_path):
    pair = build_clip("tiny", tiny, input_size=(64, 64))
    with pytest.raises(PixelClipError, match="--calibration"):
        export_bundle(pair, tmp_path / "b", precision="int8", photos=PHOTOS)
    with pytest.raises(PixelClipError, match="not those of --calibration"):
        export_bundle(pair, tmp_path / "b", precision="int8", photos=PHOTOS, calibration=PHOTOS)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def old_bundle(tmp_path) -> Path:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "bundle.json").write_text("old")
    return folder


def test_an_interrupted_export_keeps_the_old_bundle(tiny_options, old_bundle, spawn):
    command = [sys.executable, str(ROOT / "export" / "to_onnx.py"), *tiny_options, "--out", str(old_bundle)]
    process = spawn(command, stderr=subprocess.PIPE)
    for line in process.stderr:
        if "image encoder traced" in line:  # The export is in its middle.
            process.send_signal(signal.SIGINT)
            break
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "interrupted; an older bundle is unchanged" in error
    assert (old_bundle / "bundle.json").read_text() == "old"
    assert [path.name for path in old_bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_keeps_the_old_bundle(tiny_options, old_bundle):
    """No file of the process may grow beyond 1 MB, which looks like a full disk."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
        "from export.to_onnx import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, *tiny_options, "--out", str(old_bundle)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "File too large" in result.stderr
    assert (old_bundle / "bundle.json").read_text() == "old"
    assert [path.name for path in old_bundle.parent.iterdir()] == ["bundle"]
