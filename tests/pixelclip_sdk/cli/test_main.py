import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import Vocabulary
from pixelclip_sdk.catalogue import CATALOGUE
from pixelclip_sdk.cli.main import VERBS, main, parser
from pixelclip_sdk.support import command as command_module


@pytest.fixture
def cat(tmp_path, photo):
    path = tmp_path / "in" / "cat.png"
    path.parent.mkdir()
    Image.fromarray(photo).save(path)
    return path


def test_predict_writes_overlay_labels_and_facts(cat, tmp_path, photo, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(cat), "--classes", "cat, bicycle", "--out", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["cat.json", "cat.labels.png", "cat.overlay.png"]
    facts = json.loads((out / "cat.json").read_text())
    assert facts["names"] == ["cat", "bicycle"]
    assert facts["areas"]["cat"] > 0.5
    with Image.open(out / "cat.labels.png") as labels:
        assert np.asarray(labels).shape == photo.shape[:2]
        assert (np.asarray(labels) == 0).mean() == pytest.approx(facts["areas"]["cat"])
    assert "cat.png: cat" in capsys.readouterr().out


def test_predict_goes_on_after_a_bad_file_and_says_so(cat, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    out = tmp_path / "out"
    assert main(["predict", str(bad), str(cat), "--classes", "cat", "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "bad.jpg is not an image" in printed.err
    assert "1 of 2" in printed.out
    assert (out / "cat.labels.png").exists()


def test_predict_takes_folders_and_keeps_results_of_equal_names_apart(cat, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    Image.open(cat).convert("L").save(other / "cat.jpg")
    (other / "notes.txt").write_text("not a picture")
    out = tmp_path / "out"
    assert main(["predict", str(cat), str(other), "--classes", "cat", "--out", str(out)]) == 0
    assert {p.name for p in out.glob("*.json")} == {"cat.png.json", "cat.jpg.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--classes", ""], "no classes"),
        (["--classes", "cat, cat"], "repeated"),
        (["--classes", "cat", "--model", "pixelclip-light"], "Did you mean"),
        (["--classes", "cat", "--imgsz", "100", "224"], "for example 96 or 128"),
        (["--classes", "nowhere.txt"], "cannot be read"),
    ],
)
def test_errors_are_one_line_without_a_traceback(cat, tmp_path, capsys, arguments, said):
    assert main(["predict", str(cat), "--out", str(tmp_path / "out"), *arguments]) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.startswith("pixelclip: ")
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_out_folder_that_cannot_be_written_is_refused(cat, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert main(["predict", str(cat), "--classes", "cat", "--out", str(tmp_path / "file")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path, capsys):
    assert main(["predict", str(tmp_path), "--classes", "cat", "--out", str(tmp_path / "out")]) == 1
    assert "has no image files" in capsys.readouterr().err


def test_vocab_build_then_show_then_predict(cat, tmp_path, capsys):
    path = tmp_path / "rooms.npz"
    assert main(["vocab", "build", "cat, sofa, couch", "--out", str(path)]) == 0
    assert Vocabulary.load(path).names == ("cat", "sofa", "couch")
    assert main(["vocab", "show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "nearest: couch" in shown
    assert main(["predict", str(cat), "--classes", str(path), "--out", str(tmp_path / "out")]) == 0


def test_vocab_list_names_the_lists_and_a_name_works_as_classes(cat, tmp_path, capsys):
    assert main(["vocab", "list"]) == 0
    shown = capsys.readouterr().out
    assert "voc-20" in shown
    assert main(["predict", str(cat), "--classes", "voc-20", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / f"{cat.stem}.json").read_text())["names"][0] == "aeroplane"
    assert main(["predict", str(cat), "--classes", "voc-21", "--out", str(tmp_path)]) == 1
    assert "Did you mean 'voc-20'" in capsys.readouterr().err


def test_models_lists_the_bundled_one_and_the_published_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path))
    assert main(["models"]) == 0
    here, _, download = capsys.readouterr().out.partition("To download with `pixelclip pull NAME`:")
    assert "pixelclip-lite" in here
    address = "https://huggingface.co/hsshin98/PixelCLIP/resolve/main/weights/pixelclip_vit_base.pth"
    assert re.search(rf"pixelclip-vit-b16 +about 600 MB +MIT +{address}\n", download)
    assert main(["models", "--json"]) == 0
    lite, *published = json.loads(capsys.readouterr().out)
    assert (lite["name"], lite["installed"], lite["new_words"]) == ("pixelclip-lite", True, True)
    assert {row["name"] for row in published} == set(CATALOGUE)
    assert not any(row["installed"] for row in published)


def test_models_shows_a_broken_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "bundle.json").write_text("{}")
    assert main(["models"]) == 0
    assert "broken" in capsys.readouterr().out


def test_predict_does_not_take_its_own_results_for_pictures(cat):
    folder = cat.parent
    for _ in range(2):
        assert main(["predict", str(folder), "--classes", "cat, sofa", "--out", str(folder)]) == 0
    names = ["cat.json", "cat.labels.png", "cat.overlay.png", "cat.png"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_file_name_that_stdout_has_no_letters_for_is_printed_all_the_same(cat, tmp_path):
    odd = cat.rename(cat.with_name("katze-\N{SNOWMAN}.png"))
    command = [sys.executable, "-m", "pixelclip_sdk", "predict", str(odd), "--classes", "cat, sofa"]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    command += ["--out", str(tmp_path / "out")]
    run = subprocess.run(command, env=environment, capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert b"katze-\\u2603.png: cat" in run.stdout


def test_benchmark_reports_stages_and_percentiles(cat, capsys):
    assert main(["benchmark", "--runs", "3", "--json", "--classes", "cat, dog", "--image", str(cat)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["stages"]) == {"decode", "preprocess", "inference", "refine", "postprocess", "total"}
    assert set(report["stages"]["total"]) == {"mean", "p50", "p90", "p95", "p99"}
    assert report["classes"] == 2
    assert report["environment"]["packages"]["onnxruntime"][0].isdigit()
    stages = report["stages"]
    assert stages["total"]["mean"] >= sum(stages[s]["mean"] for s in stages if s != "total") * 0.99
    assert main(["benchmark", "--runs", "2"]) == 0
    assert "frames a second" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", "--runs", "0"])


def test_doctor_finds_a_healthy_install(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "every hash right" in shown
    assert "Ready." in shown


def test_wrong_usage_exits_with_two(capsys):
    with pytest.raises(SystemExit) as error:
        main(["predict"])
    assert error.value.code == 2
    assert "--classes" in capsys.readouterr().err


def test_the_module_runs_as_a_command():
    result = subprocess.run(
        [sys.executable, "-m", "pixelclip_sdk", "--version"], capture_output=True, text=True
    )
    assert result.stdout.startswith("pixelclip-sdk ")


def test_a_folder_of_nothing_but_results_is_refused(cat, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["predict", str(cat), "--classes", "cat", "--out", str(out)]) == 0
    assert main(["predict", str(out), "--classes", "cat", "--out", str(tmp_path / "more")]) == 1
    assert "no image files but results" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "pixelclip_sdk", "vocab", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 0


def test_doctor_tells_of_every_backend_and_of_video(capsys):
    main(["doctor"])
    told = capsys.readouterr().out
    for name in ("video", "onnx, cpu", "onnx, gpu", "onnx-cuda", "onnx-tensorrt", "tensorrt", "tensorrt-rtx"):
        assert re.search(rf"^(ok|missing|broken) +(backend )?{name} ", told, re.MULTILINE), name


def options_of(parser) -> set[str]:
    """All option strings of a parser and the parsers of its verbs."""
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(options_of, action.choices.values()))
    return found


def test_the_guide_has_the_address_of_every_published_model():
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    for name, model in CATALOGUE.items():
        row = f"| `{name}` | about {model.megabytes} MB | {model.license} | <{model.url}> |"
        assert row in [line.strip() for line in page.splitlines()], row
    known = [model for model in CATALOGUE.values() if model.revision or model.sha256]
    assert bool(known) != ("No commit or hash is pinned yet" in page)


def test_the_reference_names_every_verb_option_and_exit_code():
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    for verb in VERBS:
        assert re.search(rf"`{verb}\b", page), verb
    for option in options_of(parser()) - {"-h", "--version"}:
        assert re.search(rf"`[^`]*{option}\b", page), option
    codes = re.findall(r"^\| (\d+) \|", page, re.M)
    assert codes == re.findall(r"^(\d+) ", command_module.__doc__, re.M)


def test_an_interrupt_while_the_verbs_are_imported_ends_with_130(tmp_path):
    code = (
        "import os, signal, sys, importlib.abc\n"
        "class Interrupt(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pixelclip_sdk.segmenter':\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from pixelclip_sdk.cli.main import main\n"
        "sys.exit(main(['models']))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stderr.splitlines()[-1][:23]) == (130, "pixelclip: interrupted;")
