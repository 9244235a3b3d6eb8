"""The command, with the bundled model, its PyTorch source and a checkpoint."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file

from pixelclip_sdk import Vocabulary
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.image import load_image
from training.evaluate import main
from training.evaluation.datasets import load_dataset
from training.evaluation.metrics import Confusion
from training.evaluation.open_model import Source, open_model
from training.evaluation.protocols import Official, Whole, segment
from training.evaluation.scoring import Job, _placed, evaluate
from training.models.lite.build import build_lite
from training.models.load import load_model
from training.models.runtime import TorchTextEncoder
from training.models.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
WORDS = {"cat": ("cat",), "coffee": ("cup of coffee", "coffee"), "grass": ("grass",)}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Two real photos: in one all is cat, in the other coffee; a border is ignored."""
    folder = tmp_path_factory.mktemp("labelled")
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for label, name in enumerate(("chelsea", "coffee")):
        photo = Image.open(ROOT / f"examples/photos/{name}.jpg").resize((320, 240))
        photo.save(folder / f"images/{name}.png")
        truth = np.full((240, 320), 255, np.uint8)
        truth[20:-20, 20:-20] = label
        Image.fromarray(truth).save(folder / f"labels/{name}.png")
    (folder / "words.json").write_text(json.dumps(WORDS))
    return folder


@pytest.fixture(scope="module")
def data(labelled):
    return load_dataset("folder", labelled, classes=WORDS)


@pytest.fixture
def command(labelled):
    return ["--dataset", "folder", "--root", str(labelled), "--classes", str(labelled / "words.json")]


BUNDLE = Source(name="pixelclip-lite", bundle=True, device="cpu")


def test_a_bundle_gives_the_segmenter_s_labels(data, lite):
    found, report = evaluate(Job(source=BUNDLE, dataset=data, protocol=Whole()), progress=False)
    before = lite.vocabulary
    lite.set_classes(WORDS)
    expected = sum(
        (Confusion.of(data.truth(i), lite.predict(photo).labels, 3) for i, photo in enumerate(data.photos)),
        Confusion.empty(3),
    )
    lite.set_classes(before)
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    assert found.matrix.sum() == 2 * 200 * 280
    assert found.miou > 0.8
    assert report["bundle"] == "pixelclip-lite"
    assert report["files"]["image_encoder.onnx"] == lite.bundle.files["image_encoder.onnx"]["sha256"]


def test_several_processes_give_the_same(data):
    job = Job(source=BUNDLE, dataset=data, protocol=Whole(), threads=1)
    found = [evaluate(job, workers=workers, progress=False) for workers in (1, 2)]
    np.testing.assert_array_equal(found[0][0].matrix, found[1][0].matrix)
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize(
    ("gpus", "bundle", "device", "engines", "expected"),
    [
        (2, False, "auto", False, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, False, "cuda", False, ["cuda:0", "cuda:1", "cuda:0"]),
        (2, False, "cpu", False, ["cpu"] * 3),
        (2, False, "cuda:1", False, ["cuda:1"] * 3),
        (2, True, "gpu", False, ["gpu:0", "gpu:1", "gpu:0"]),
        (2, True, "auto", True, ["gpu:0", "gpu:1", "gpu:0"]),
        (2, True, "auto", False, ["auto"] * 3),  # ONNX Runtime, on the CPU
        (1, False, "auto", False, ["auto"] * 3),
        (0, False, "auto", False, ["auto"] * 3),
        (0, True, "gpu", False, ["gpu"] * 3),  # an error, which the backend raises
    ],
)
def test_processes_take_turns_over_gpus(monkeypatch, gpus, bundle, device, engines, expected):
    """Which GPU each gets; there are none here to run on."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("training.evaluation.scoring.engine_files", lambda folder: [folder] * engines)
    source = Source(name="pixelclip-lite", bundle=bundle, device=device)
    assert [_placed(source, rank).device for rank in range(3)] == expected


@pytest.fixture(scope="module")
def tuned(lite, tmp_path_factory):
    """A checkpoint of the bundle's weights: those of the packages, and the ridge map that was trained."""
    graph = onnx.load(lite.bundle.file("image_encoder.onnx")).graph
    stored = {tuple(w.dims): numpy_helper.to_array(w).astype(np.float32) for w in graph.initializer}
    weights = build_lite().image.state_dict()
    ridge = stored[1280, 384] * stored[1280, 1]
    weights["ridge.weight"] = torch.from_numpy(np.ascontiguousarray(ridge.T))
    weights["ridge.bias"] = torch.from_numpy(stored[384,].copy())
    path = tmp_path_factory.mktemp("tuned") / "tuned.safetensors"
    save_file(weights, path)
    return path


def _official(model, photo):
    return segment(Official(), photo, model.vocabulary.embeddings, model.backend, model.spec)


def test_the_pytorch_source_agrees_with_its_bundle(data, tuned):
    sources = BUNDLE, Source(name="pixelclip-lite", checkpoint=tuned, device="cpu")
    models = [open_model(source, data.classes) for source in sources]
    photos = [load_image(file) for file in data.photos]
    for predict in (_official, lambda model, photo: model.segmenter.predict(photo, refine="off").labels):
        bundle, source = (np.stack([predict(model, photo) for photo in photos]) for model in models)
        assert len(np.unique(bundle)) > 1
        assert (
            bundle == source
        ).mean() > 0.97  # Differs by processor: 97.8 % on an EPYC with VNNI, more elsewhere.


def test_given_masks_are_classified(data):
    found, report = evaluate(Job(source=BUNDLE, dataset=data, protocol=Whole(), masks=True), progress=False)
    assert np.array_equal(found.matrix, np.diag([200 * 280, 200 * 280, 0]))
    assert report["task"] == "classification of ground-truth masks"
    assert report["iou"] == {"cat": 1.0, "coffee": 1.0, "grass": None}


@pytest.mark.parametrize(
    ("prompts", "templates"),
    [
        ("model", ("a photo of a {}.",)),
        ("none", ("{}",)),
        ("single", ("A photo of a {} in the scene",)),
        ("ensemble", TEMPLATES),
    ],
)
def test_prompts(lite, prompts, templates):
    """The mean over synonyms and templates, each embedding normalised, the mean normalised again."""
    model = open_model(Source(name="pixelclip-lite", bundle=True, prompts=prompts), WORDS)
    assert model.vocabulary.templates == templates
    from pixelclip_sdk.words.text_encoder import TextEncoder

    rows = TextEncoder(lite.bundle).encode(
        [t.format(w) for w in ("cup of coffee", "coffee") for t in templates]
    )
    mean = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
    np.testing.assert_allclose(
        model.vocabulary.embeddings[1], mean, atol=2e-3
    )  # int8: batches differ a little


@pytest.fixture(scope="module")
def pair():
    return load_model("pixelclip-lite")


def test_long_lists_are_embedded_in_batches(pair):
    words = [f"thing {i}" for i in range(70)]
    encoder = TorchTextEncoder(pair, ("{}",))
    rows = encoder.encode(words)
    assert rows.shape == (70, 384)
    np.testing.assert_allclose(rows[69], encoder.encode(words[69:])[0], atol=1e-5)
    assert Vocabulary.encode(words, encoder).templates == ("{}",)


def test_a_checkpoint_of_the_user(pair, data, command, tmp_path, capsys):
    state = pair.image.state_dict()
    state["class_points"] = state["class_points"].flip(0)  # each class at another's place
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "mine.safetensors")
    out = tmp_path / "result.json"
    own = ["--model", "pixelclip-lite", "--checkpoint", str(tmp_path / "mine.safetensors")]
    assert main([*own, *command, "--protocol", "whole", "--device", "cpu", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["checkpoint"]["file"] == "mine.safetensors"
    assert len(report["checkpoint"]["sha256"]) == 64
    job = Job(source=BUNDLE, dataset=data, protocol=Whole())
    assert report["miou"] < evaluate(job, progress=False)[0].miou - 0.2
    printed = capsys.readouterr().out
    assert printed.startswith(f"pixelclip-lite with {tmp_path / 'mine.safetensors'} on folder, 2 photos\n")
    assert "IoU" in printed


def test_the_command_reports_everything(command, tmp_path):
    out = tmp_path / "result.json"
    script = [sys.executable, "-W", "error", str(ROOT / "training/evaluate.py"), "--bundle", "pixelclip-lite"]
    script += [*command, "--workers", "2", "--json", str(out)]
    result = subprocess.run(script, capture_output=True, text=True, check=True)
    assert "pixelclip-lite on folder, 2 photos" in result.stdout
    assert result.stderr == ""  # no progress bar, because stderr is not a terminal
    assert "coffee" in result.stdout
    report = json.loads(out.read_text())
    assert report["protocol"] == {
        "name": "official",
        "short_side": 640,
        "longest": 2560,
        "window": None,
        "postprocessing": report["protocol"]["postprocessing"],
    }
    assert report["input"]["height"] == 352
    assert report["templates"] == ["a photo of a {}."]
    assert report["synonyms"]["coffee"] == ["cup of coffee", "coffee"]
    assert report["dataset"] == {
        "name": "folder",
        "split": "",
        "photos": 2,
        "expected_photos": None,
        "labels": "labels/{stem}.png",
    }
    assert np.sum(report["confusion"]) == 2 * 200 * 280
    assert {source["sha256"] for source in report["sources"]} >= {report["sources"][0]["sha256"]}
    assert report["iou"]["grass"] is None


@pytest.mark.parametrize("prompts", ["model", "ensemble"])
def test_a_bundle_needs_no_torch(command, prompts):
    code = "import sys; from training.evaluate import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    script = [sys.executable, "-c", code, "--bundle", "pixelclip-lite", *command, "--prompts", prompts]
    result = subprocess.run(script, capture_output=True, text=True, check=True)
    assert result.stdout.endswith("0 False\n")


def run(arguments, command):
    return main(["--bundle", "pixelclip-lite", *command, "--protocol", "whole", *arguments])


def test_labels_of_another_size_are_an_error(tmp_path, capsys):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "images/a.png")
    Image.new("L", (32, 31)).save(tmp_path / "labels/a.png")
    command = ["--dataset", "folder", "--root", str(tmp_path), "--classes", "cat, sofa"]
    out = tmp_path / "result.json"
    assert run(["--json", str(out)], command) == 1
    assert "a.png is (32, 32), its labels are (31, 32)" in capsys.readouterr().err
    (tmp_path / "images/a.png").write_bytes(b"no image")
    assert run(["--json", str(out)], command) == 1
    assert "a.png cannot be opened as an image" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "x.pth"], "require --model"),
        (["--input-size", "32", "64"], "require --model"),
        (["--imgsz", "32", "64"], "require --model"),
        (["--offline"], "require --model"),
        (["--short-side", "480"], "require --protocol windows"),
        (["--stride", "160"], "require --protocol windows"),
        (["--split", "val"], "a folder has no splits"),
        (["--protocol", "official", "--refine", "edges"], "--refine requires --protocol whole"),
        (["--masks", "--refine", "edges"], "--refine requires --protocol whole"),
        (["--dataset", "sets.yaml"], "--classes and --ignore belong into sets.yaml"),
    ],
)
def test_conflicting_options(command, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        run(arguments, command)
    assert message in capsys.readouterr().err


def test_missing_devices(command, capsys):
    for device, said in (("gpu", "expected auto, cpu, cuda"), ("cuda:99", "torch finds")):
        assert main(["--model", "pixelclip-lite", *command, "--device", device]) == 1
        assert said in capsys.readouterr().err


def test_wrong_weights_of_lite(command, pair, tmp_path, capsys):
    state = {key: value.contiguous() for key, value in pair.image.state_dict().items()}
    wrong = {
        "not a number": state | {"ridge.weight": torch.full_like(state["ridge.weight"], torch.nan)},
        "others": {"visual.conv1.weight": torch.zeros(3)},
    }
    for said, weights in zip(("not finite", "missing"), wrong.values(), strict=True):
        save_file(weights, tmp_path / "wrong.safetensors")
        own = ["--model", "pixelclip-lite", "--checkpoint", str(tmp_path / "wrong.safetensors")]
        assert main([*own, *command, "--device", "cpu"]) == 1
        message = capsys.readouterr().err
        assert said in message
        assert "pixelclip-lite's image encoder" in message
        assert len(message) < 2000


def test_missing_models_and_data(command, capsys):
    assert main(["--bundle", "nothing", *command]) == 1
    assert "no model 'nothing'" in capsys.readouterr().err
    assert main(["--bundle", "nothing", *command, "--workers", "2"]) == 1  # found out in another process
    assert "no model 'nothing'" in capsys.readouterr().err
    assert run(["--split", "val"], ["--dataset", "camvid-11", "--root", "nowhere"]) == 1
    assert "no photos at" in capsys.readouterr().err


def test_wrong_labels_are_found_before_the_model_is_opened(labelled, tmp_path, capsys, monkeypatch):
    """Ids of VOC, 0 for the background: two photos, and the wrong id is in the second."""
    shutil.copytree(labelled / "images", tmp_path / "images")
    (tmp_path / "labels").mkdir()
    for name, ids in (("chelsea", [0, 1]), ("coffee", [0, 1, 2, 3])):
        truth = np.zeros((240, 320), np.uint8)
        truth[:, : len(ids)] = ids
        Image.fromarray(truth).save(tmp_path / f"labels/{name}.png")
    command = ["--dataset", "folder", "--root", str(tmp_path), "--classes", "cat, coffee, grass"]
    monkeypatch.setattr("training.evaluation.scoring.open_model", None)
    assert run([], command) == 1
    error = capsys.readouterr().err
    assert (
        "coffee.png has the label ids 3; folder has 0-2, 255. If 0 is the background, give --ignore 0"
        in error
    )
    monkeypatch.undo()
    assert run(["--ignore", "0"], command) == 0
    assert "coffee" in capsys.readouterr().out


def test_an_engine_of_one_size_gets_that_size(monkeypatch, lite, data):
    """ONNX Runtime restricted to one size, as an engine is: the nominal size of the bundle is another."""
    size = (256, 320)
    backend = OnnxBackend(
        lite.bundle.file("image_encoder.onnx"), embedding_dim=384, multiple=32, fixed_size=size, threads=1
    )
    monkeypatch.setattr("pixelclip_sdk.backends.choose.open_backend", lambda *_: backend)
    found, report = evaluate(Job(source=BUNDLE, dataset=data, protocol=Official()))
    assert (report["input"]["height"], report["input"]["width"], report["input"]["fixed"]) == (*size, True)
    assert found.matrix.sum() == 2 * 200 * 280


def test_embeddings_instead_of_words(command, lite, tmp_path, capsys):
    file = lite.vocabulary.save(tmp_path / "words.npz")
    assert run(["--classes", str(file)], command) == 1
    assert "words.npz is a vocabulary of embeddings; expected words" in capsys.readouterr().err


def test_several_sets_at_once(labelled, tmp_path, capsys):
    words = {name: list(texts) for name, texts in WORDS.items()}
    sets = {
        "mine": {"dataset": "folder", "folder": labelled.name, "classes": words},
        "coffee first": {"dataset": "folder", "folder": labelled.name, "classes": ["coffee", "cat"]},
    }
    file, out = tmp_path / "sets.yaml", tmp_path / "result.json"
    file.write_text(yaml.safe_dump(sets, sort_keys=False))
    command = ["--dataset", str(file), "--root", str(labelled.parent)]
    assert run(["--json", str(out)], command) == 0
    report = json.loads(out.read_text())
    assert list(report["sets"]) == ["mine", "coffee first"]
    scores = [part["miou"] for part in report["sets"].values()]
    assert scores[0] > 0.8
    assert scores[1] < 0.2
    assert report["mean"] == {"mIoU": pytest.approx(sum(scores) / 2), "boundary": 0.0}
    lines = capsys.readouterr().out.splitlines()
    assert "pixelclip-lite on mine, 2 photos" in lines
    assert lines[-1].split()[:2] == ["mean", f"{sum(scores) / 2:.1%}"]


def test_wrong_labels_of_the_last_set_are_found_before_the_first_photo(
    labelled, tmp_path, capsys, monkeypatch
):
    shutil.copytree(labelled, tmp_path / "b")
    Image.fromarray(np.full((240, 320), 9, np.uint8)).save(tmp_path / "b/labels/coffee.png")
    entry = {"dataset": "folder", "classes": list(WORDS)}
    sets = {"a": {**entry, "folder": str(labelled)}, "b": {**entry, "folder": "b"}}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump(sets))
    monkeypatch.setattr("training.evaluation.scoring.open_model", None)
    assert run([], ["--dataset", str(tmp_path / "sets.yaml"), "--root", str(tmp_path)]) == 1
    assert "coffee.png has the label ids 9; b has 0-2, 255" in capsys.readouterr().err


def test_boundaries_are_reported(tmp_path, capsys):
    """The cat's photo beside the coffee's: the boundary is in the middle."""
    photos = [
        Image.open(ROOT / f"examples/photos/{name}.jpg").resize((320, 240)) for name in ("chelsea", "coffee")
    ]
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.concatenate([np.asarray(photo) for photo in photos], axis=1)).save(
        tmp_path / "images/a.png"
    )
    truth = np.zeros((240, 640), np.uint8)
    truth[:, 320:] = 1
    Image.fromarray(truth).save(tmp_path / "labels/a.png")
    out = tmp_path / "result.json"
    command = ["--dataset", "folder", "--root", str(tmp_path), "--classes", "cat, cup of coffee"]
    assert run(["--json", str(out)], command) == 0
    found = json.loads(out.read_text())["boundary"]
    assert found["photos"] == {"cat": 1, "cup of coffee": 1}
    assert 0 < found["recall"]["cat"] <= 1
    assert "boundary" in capsys.readouterr().out
    assert run(["--json", str(out), "--masks"], command) == 0
    assert "boundary" not in json.loads(out.read_text())
    assert "boundary" not in capsys.readouterr().out


def test_windows_of_the_bundle(command, capsys):
    assert run(["--protocol", "windows", "--short-side", "480", "--stride", "300"], command) == 0
    assert "protocol windows" in capsys.readouterr().out
    assert run(["--protocol", "windows", "--short-side", "300"], command) == 1
    assert "does not fit" in capsys.readouterr().err
    assert run(["--protocol", "windows", "--masks"], command) == 1
    assert "masks need the features of a single pass" in capsys.readouterr().err
