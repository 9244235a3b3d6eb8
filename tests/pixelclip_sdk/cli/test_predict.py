"""`pixelclip predict`: what it reads, what it writes, and from where each result came."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelclip_sdk import Segmenter
from pixelclip_sdk.cli.main import main
from pixelclip_sdk.cli.predict import _result_stems
from pixelclip_sdk.models import BUNDLED
from pixelclip_sdk.support.files import sha256

CLASSES = ["--classes", "cat, sofa"]


@pytest.fixture
def cat(tmp_path, photo) -> Path:
    path = tmp_path / "in" / "cat.png"
    path.parent.mkdir()
    Image.fromarray(np.asarray(photo)[::4, ::4]).save(path)
    return path


def results(folder: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}


def test_the_facts_say_how_a_result_was_made(cat, tmp_path):
    out = tmp_path / "out"
    arguments = ["--threshold", "0.1", "--input-size", "96", "128", "--backend", "onnx", "--out", str(out)]
    assert main(["predict", str(cat), *CLASSES, *arguments]) == 0
    facts = results(out)["cat.json"]
    manifest = json.loads((BUNDLED / "pixelclip-lite" / "bundle.json").read_text())
    assert facts["source"] == str(cat)
    assert facts["model"] == "pixelclip-lite"
    assert facts["model_sha256"] == manifest["files"]["image_encoder.onnx"]["sha256"]
    assert facts["threshold"] == 0.1
    with Image.open(cat) as image:
        assert facts["size"] == [image.height, image.width]
    assert facts["names"] == ["cat", "sofa"]
    assert (out / facts["labels"]).is_file()
    assert (out / facts["overlay"]).is_file()


def test_json_on_stdout_is_one_document_with_results_and_failures(cat, tmp_path, capsys):
    bad = tmp_path / "in" / "bad.jpg"
    bad.write_bytes(b"no picture")
    (tmp_path / "in" / "._cat.png").write_bytes(b"resource fork")
    out = tmp_path / "out"
    assert main(["predict", str(cat.parent), *CLASSES, "--json", "--out", str(out)]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["images"] == [results(out)["cat.json"]]
    (failed,) = document["failed"]
    assert failed["source"] == str(bad)
    assert "bad.jpg is not an image" in failed["error"]
    assert "bad.jpg is not an image" in printed.err


def test_results_of_files_of_one_name_can_be_told_apart(cat, tmp_path):
    for folder in ("d1", "d2"):
        (tmp_path / folder).mkdir()
        shutil.copy(cat, tmp_path / folder / "a.png")
    out, files = tmp_path / "out", [str(tmp_path / folder / "a.png") for folder in ("d1", "d2")]
    assert main(["predict", *files, *CLASSES, "--out", str(out)]) == 0
    facts = results(out)
    assert {name: value["source"] for name, value in facts.items()} == {
        "d1_a.json": files[0],
        "d2_a.json": files[1],
    }


@pytest.mark.parametrize(
    ("files", "stems"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png", "b.png"], ["a.jpg", "a.png", "b"]),
        (["A.jpg", "a.png"], ["A.jpg", "a.png"]),
        (["x/a.jpg", "y/a.jpg"], ["x_a", "y_a"]),
        (["x/d/a.jpg", "y/d/a.jpg"], ["a", "a-2"]),
        (["x/d/a.jpg", "y/d/a.jpg", "a-2.jpg"], ["a", "a-2", "a-2-2"]),
        (["a.jpg", "a.jpg"], ["a", "a-2"]),
        (["x/a.jpg", "y/a.jpg", "x_a.png"], ["x_a", "y_a", "x_a-2"]),
    ],
)
def test_names_of_results(files, stems):
    assert _result_stems([Path(file) for file in files]) == stems


@pytest.mark.parametrize("stem", ["x" * 251, "é" * 125, "猫" * 83, "a" * 249 + "\udcff"])
def test_long_names_are_shortened_to_what_a_file_system_takes(tmp_path, stem):
    (short,) = _result_stems([Path(f"{stem}.png")])
    (other,) = _result_stems([Path(f"{stem[:-1]}y.png")])
    assert short != other
    assert short[:60] == stem[:60]
    for suffix in (".overlay.png", ".labels.png", ".json"):
        (tmp_path / f"{short}{suffix}").touch()


def test_a_file_name_of_255_bytes_is_segmented_and_the_others_as_well(cat, tmp_path):
    longest = cat.with_name("x" * 251 + ".png")
    shutil.copy(cat, longest)
    out = tmp_path / "out"
    assert main(["predict", str(cat.parent), *CLASSES, "--out", str(out)]) == 0
    assert {facts["source"] for facts in results(out).values()} == {str(cat), str(longest)}
    assert len(list(out.iterdir())) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_a_name_with_control_characters_or_no_utf8_is_escaped_on_the_terminal_and_kept_in_json(
    cat, tmp_path, capsys
):
    odd = cat.rename(cat.with_name("c\x1b[2J\udcff.png"))
    out = tmp_path / "out"
    assert main(["predict", str(odd), *CLASSES, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "c\\x1b[2J" in printed
    (facts,) = results(out).values()
    assert facts["source"] == str(odd)


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("", "an empty path"),
        ("  ", "an empty path"),
        ("https://me:secret@example.org/a.jpg", "pixelclip: https://example.org/a.jpg is an address, and"),
        ("*.jpg", "the shell did not expand the pattern"),
        ("photos/img[0-9].png", "the shell did not expand the pattern"),
    ],
)
def test_what_is_no_file_is_explained(tmp_path, monkeypatch, capsys, argument, said):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", argument, *CLASSES, "--out", "out"]) == 1
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_name_looks_like_a_pattern_is_read(cat, tmp_path):
    odd = cat.rename(cat.with_name("cat[1]?.png"))
    assert main(["predict", str(odd), *CLASSES, "--out", str(tmp_path / "out")]) == 0


@pytest.mark.usefixtures("cat")
def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "in")
    assert main(["predict", "~/in/cat.png", *CLASSES, "--out", "~/out"]) == 0
    assert main(["vocab", "build", "cat, sofa", "--out", "~/words.npz"]) == 0
    assert main(["vocab", "show", "~/words.npz"]) == 0
    assert main(["benchmark", "--image", "~/in/cat.png", "--runs", "1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "words.npz"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["cat.png"]


def test_an_empty_out_folder_is_wrong_usage(cat, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(cat), *CLASSES, "--out", ""])
    assert "an empty path" in capsys.readouterr().err


def test_the_old_spelling_of_the_input_size_still_works(cat, tmp_path):
    assert main(["predict", str(cat), *CLASSES, "--imgsz", "96", "128", "--out", str(tmp_path / "out")]) == 0


def test_a_threshold_that_no_pixel_reaches_is_pointed_out(cat, tmp_path, capsys):
    assert main(["predict", str(cat), *CLASSES, "--threshold", "0.99", "--out", str(tmp_path / "out")]) == 0
    assert "no pixel reached --threshold 0.99" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["vocab", "list"], ["models", "--json"]])
def test_a_full_stdout_is_one_line_on_stderr(arguments, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # argparse ignores errors when it writes.
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "pixelclip_sdk", *arguments]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "pixelclip: [Errno 28] No space left on device\n")


@pytest.mark.skipif(os.name != "posix", reason="closes stderr through the shell")
def test_a_closed_stderr_changes_nothing(cat, tmp_path):
    command = [sys.executable, "-m", "pixelclip_sdk", "predict", str(cat), "nowhere.jpg", *CLASSES]
    command += ["--out", str(tmp_path / "out")]
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command], stdout=subprocess.PIPE, check=False
    )
    assert result.returncode == 1
    assert b"1 of 2 images" in result.stdout
    assert (tmp_path / "out" / "cat.json").is_file()


def test_without_results_no_files_are_named(tmp_path, capsys):
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(100))
    assert main(["predict", str(tmp_path / "clip.mp4"), *CLASSES, "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "is a video; use `pixelclip video`" in printed.err
    assert printed.out == "0 of 1 images; 1 failed, see above\n"


def test_a_threshold_that_is_no_cosine_is_refused(cat, tmp_path, capsys):
    assert main(["predict", str(cat), *CLASSES, "--threshold", "40", "--out", str(tmp_path / "out")]) == 1
    assert "threshold is 40.0; expected a number from -1 to 1" in capsys.readouterr().err


def test_a_class_file_in_the_home_folder_and_a_warning_with_the_name_of_the_command(cat, tmp_path):
    (tmp_path / "c.txt").write_text("cat\n")
    command = [sys.executable, "-m", "pixelclip_sdk", "predict", str(cat), "--classes=~/c.txt"]
    command += ["--out", str(tmp_path / "out")]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert result.stderr.startswith("pixelclip: one class and no limit")
    assert list(results(tmp_path / "out")["cat.json"]["names"]) == ["cat"]


def test_windows_are_asked_for_and_recorded(cat, tmp_path, capsys):
    small = ["--input-size", "96", "128", "--out", str(tmp_path / "out")]
    assert main(["predict", str(cat), *CLASSES, "--tiles", "auto", *small]) == 0
    assert results(tmp_path / "out")["cat.json"]["tiles"] == "auto"
    assert main(["predict", str(cat), *CLASSES, "--tiles", "4", *small]) == 0
    assert results(tmp_path / "out")["cat.json"]["tiles"] == 4
    assert main(["predict", str(cat), *CLASSES, "--tiles", "65", *small]) == 1
    assert 'tiles is 65; expected "auto" or a number of windows, 1 to 64' in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["predict", str(cat), *CLASSES, "--tiles", "many", *small])


@pytest.fixture
def model_with_few_nouns(lite, tmp_path) -> Path:
    """The bundled model with a precomputed, short list of nouns."""
    folder = tmp_path / "few-nouns"
    shutil.copytree(BUNDLED / "pixelclip-lite", folder)
    words = ["cat", "kitten", "car", "airplane", "grass", "keyboard", "coffee"]
    file = lite.embed(words).save(folder / "vocabularies" / "everyday-nouns.npz")
    manifest = json.loads((folder / "bundle.json").read_text())
    entry = {"size": file.stat().st_size, "sha256": sha256(file)}
    manifest["files"]["vocabularies/everyday-nouns.npz"] = entry
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def test_without_classes_each_image_suggests_its_words(model_with_few_nouns, photo, tmp_path, capsys):
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    out = tmp_path / "out"
    assert main(["predict", str(path), "--model", str(model_with_few_nouns), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert f"{path}: no --classes; suggested: cat, " in printed.err
    facts = results(out)["photo.json"]
    assert facts["names"][0] == "cat"
    assert "kitten" not in facts["names"]  # It means nearly the same.
    assert max(facts["areas"], key=facts["areas"].get) == "cat"


@pytest.mark.slow  # Embeds 2 878 nouns.
def test_the_bundled_model_suggests_a_cat_for_a_photo_of_one(photo):
    with Segmenter.from_pretrained() as segmenter:
        words = segmenter.suggest(photo, 5)
    assert words[0].name == "cat"
    assert words[0].share > 0.5


@pytest.mark.parametrize("kind", ["coco", "yolo-seg"])
def test_formats_with_one_list_of_classes_want_classes(cat, kind, tmp_path, capsys):
    assert main(["predict", str(cat), "--format", f"png,{kind}", "--out", str(tmp_path / "out")]) == 1
    assert f"--format {kind} has one list of classes for all images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
