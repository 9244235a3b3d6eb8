"""Vocabularies in a bundle: the real pixelclip-lite, embedded with its own text encoder."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export.embed_text import add_vocabularies, main, write_vocabularies
from pixelclip_sdk import Bundle, BundleError, OutputError, Segmenter, Vocabulary, VocabularyError
from pixelclip_sdk.bundle import MANIFEST, TEXT_ENCODER, TOKENIZER
from pixelclip_sdk.cli.main import main as pixelclip
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.words.classes import class_list
from pixelclip_sdk.words.text_encoder import TextEncoder


def copied(source: Path, target: Path) -> Bundle:
    # Links: nothing writes into a file of a bundle, files are replaced.
    shutil.copytree(source, target, copy_function=os.link)
    return Bundle.open(target)


def without_text_encoder(bundle: Bundle) -> Bundle:
    files = {name: entry for name, entry in bundle.files.items() if name not in (TEXT_ENCODER, TOKENIZER)}
    manifest = dataclasses.replace(bundle, files=files).manifest()
    (bundle.path / MANIFEST).unlink()
    (bundle.path / MANIFEST).write_text(json.dumps(manifest))
    for name in (TEXT_ENCODER, TOKENIZER):
        (bundle.path / name).unlink()
    return Bundle.open(bundle.path)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return shutil.copytree(find_bundle("pixelclip-lite").path, tmp_path_factory.mktemp("lite") / "bundle")


@pytest.fixture
def bundle(original, tmp_path) -> Bundle:
    return copied(original, tmp_path / "bundle")


@pytest.fixture(scope="module")
def stripped(original, tmp_path_factory) -> Bundle:
    """A bundle without a text encoder that knows voc-20 and rooms."""
    bundle = copied(original, tmp_path_factory.mktemp("stripped") / "bundle")
    rooms = {"bed": ["bed", "bunk"], "sofa": ["sofa"]}
    return without_text_encoder(add_vocabularies(bundle, {"voc-20": "voc-20", "rooms": rooms}))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_precomputed_list_is_the_one_the_text_encoder_makes(bundle):
    changed = add_vocabularies(bundle, {"voc-20": "voc-20"})
    changed.verify()
    assert changed.vocabularies == {"voc-20": "vocabularies/voc-20.npz"}
    saved = Vocabulary.load(changed.file("vocabularies/voc-20.npz"))
    assert saved.text_hash == bundle.text_hash
    assert saved.templates == bundle.templates
    with Segmenter.from_pretrained(bundle.path) as segmenter:
        found = segmenter.set_classes("voc-20")
        assert segmenter._resolver._encoder is None  # the point of it
        expected = segmenter.set_classes(class_list("voc-20"))
        assert segmenter._resolver._encoder is not None
    assert list(found.names) == list(expected.names) == list(class_list("voc-20"))
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-6)


def test_a_list_that_is_not_precomputed_goes_through_the_text_encoder(lite):
    before = lite.vocabulary
    try:
        assert list(lite.set_classes("cityscapes-19").names) == list(class_list("cityscapes-19"))
    finally:
        lite.set_classes(before)


def test_replacing_leaves_one_file_and_a_whole_bundle(bundle):
    for words in ("bed, sofa", "oven, sink", "bath, towel"):
        bundle = add_vocabularies(bundle, {"rooms": words})
        bundle.verify()
        (name,) = bundle.vocabularies.values()
        assert list(Vocabulary.load(bundle.file(name)).names) == words.split(", ")
        files = {p.name for p in (bundle.path / "vocabularies").iterdir()}
        assert files == {Path(file).name for file in bundle.vocabulary_files.values()}
        assert len(files) == 2  # And the background words.


def test_background_words_and_their_constants_replace_those_before(bundle, tmp_path):
    calibration = tmp_path / "calibration.json"
    constants = {"temperature": 0.25, "background_weight": 0.5}
    calibration.write_text(json.dumps({"calibration": constants}))
    arguments = ["--bundle", str(bundle.path), "--classes", "fog, smoke", "--name", "background"]
    assert main([*arguments, "--calibration", str(calibration)]) == 0
    changed = Bundle.open(bundle.path)
    changed.verify()
    assert changed.confidence == constants
    assert changed.vocabularies == bundle.vocabularies  # It is no list to choose.
    assert json.loads((bundle.path / MANIFEST).read_text())["confidence"] == constants
    assert [p.name.partition(".")[0] for p in (bundle.path / "vocabularies").iterdir()] == ["background"]
    with Segmenter.from_pretrained(bundle.path, classes=["cat"], background=["sofa"]) as segmenter:
        rivals = segmenter.predict(np.zeros((64, 64, 3), np.uint8)).rivals
    assert (len(rivals.asked), len(rivals.everyday)) == (1, 2)
    assert rivals.calibration == (0.25, 0.5)


@pytest.mark.parametrize("text", ["{}", "[1]", '{"calibration": {"temperatur": 1}}', "x"])
def test_a_file_without_constants_is_refused(bundle, tmp_path, text, capsys):
    (tmp_path / "calibration.json").write_text(text)
    before = contents(bundle.path)
    arguments = ["--bundle", str(bundle.path), "--classes", "fog, smoke", "--name", "background"]
    assert main([*arguments, "--calibration", str(tmp_path / "calibration.json")]) == 1
    assert "has no calibration" in capsys.readouterr().err
    assert contents(bundle.path) == before


def test_processes_that_add_at_once_lose_nothing(bundle):
    code = """
import sys
from export.embed_text import add_vocabularies
from pixelclip_sdk import Bundle
bundle = Bundle.open(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
add_vocabularies(bundle, {sys.argv[2]: ["oven", "sink"]})
"""
    names = ["one", "two", "three"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(bundle.path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in names
    ]
    for process in processes:  # All have read the bundle as it was.
        assert process.stdout.readline() == b"open\n"
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.close()
    for process in processes:
        assert process.wait(120) == 0
        process.stdout.close()
    found = Bundle.open(bundle.path)
    assert set(names) <= set(found.vocabularies)
    found.verify()


@pytest.mark.parametrize("fails", ["rooms.2.npz", MANIFEST])
def test_a_full_disk_leaves_the_bundle_as_it_was(bundle, monkeypatch, fails):
    bundle = add_vocabularies(bundle, {"rooms": "bed, sofa"})
    before = contents(bundle.path)
    replace = Path.replace

    def full(self, target):
        if Path(target).name == fails:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        add_vocabularies(bundle, {"other": "a tree", "rooms": "oven, sink"})
    assert contents(bundle.path) == before


KILLED = """
import os, sys
from pathlib import Path
from export.embed_text import add_vocabularies
from pixelclip_sdk import Bundle
steps = 0
def stop_at(function):
    def stopping(self, *arguments, **keywords):
        global steps
        if "tmp" in str(self) or "bundle" in str(self):
            steps += 1
            if steps == int(sys.argv[2]):
                os._exit(9)
        return function(self, *arguments, **keywords)
    return stopping
for name in ("touch", "replace", "write_text", "unlink"):
    setattr(Path, name, stop_at(getattr(Path, name)))
add_vocabularies(Bundle.open(sys.argv[1]), {"rooms": "oven, sink"})
"""


@pytest.mark.slow
def test_killed_at_any_step_the_bundle_is_the_old_one_or_the_new_one(original, tmp_path):
    add_vocabularies(copied(original, tmp_path / "start"), {"rooms": "bed, sofa"})
    outcomes = []
    for step in range(1, 20):
        bundle = copied(tmp_path / "start", tmp_path / f"bundle{step}")
        command = [sys.executable, "-c", KILLED, str(bundle.path), str(step)]
        code = subprocess.run(command, cwd=Path(__file__).parents[2]).returncode
        bundle = Bundle.open(bundle.path)
        bundle.verify()
        names = list(Vocabulary.load(bundle.file(bundle.vocabularies["rooms"])).names)
        assert names in (["bed", "sofa"], ["oven", "sink"])
        outcomes.append(names[0])
        # And the next run is not disturbed by what was left.
        again = add_vocabularies(bundle, {"rooms": "bath, towel"})
        assert list(Vocabulary.load(again.file(again.vocabularies["rooms"])).names) == ["bath", "towel"]
        shutil.rmtree(bundle.path)
        if code == 0:
            break
        assert code == 9
    assert code == 0
    assert outcomes.count("bed") >= 3
    assert outcomes.count("oven") >= 2


def test_without_a_text_encoder_a_bundle_works_end_to_end(stripped, photo, tmp_path, capsys):
    with Segmenter.from_pretrained(stripped.path, classes="voc-20") as segmenter:
        assert list(segmenter.predict(photo).names) == list(class_list("voc-20"))
        assert segmenter.set_classes("rooms").synonyms["bed"] == ("bed", "bunk")
        for name, message in {
            "voc-21": "Did you mean 'voc-20'.*rooms, voc-20",
            "room": "Did you mean 'rooms'",
            "cityscapes-19": "no vocabulary 'cityscapes-19'. Its vocabularies: rooms, voc-20",
        }.items():
            with pytest.raises(VocabularyError, match=message):
                segmenter.set_classes(name)
        for words in (["cat"], "cat, dog"):
            with pytest.raises(BundleError, match=r"no text encoder.*rooms, voc-20"):
                segmenter.set_classes(words)
        assert segmenter.vocabulary.names == ("bed", "sofa")
    arguments = ["--model", str(stripped.path), "--out", str(tmp_path / "out")]
    picture = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.jpg"
    assert pixelclip(["predict", str(picture), "--classes", "voc-20", *arguments]) == 0
    assert (tmp_path / "out" / "chelsea.labels.png").exists()
    capsys.readouterr()
    assert pixelclip(["vocab", "list", "--model", str(stripped.path)]) == 0
    shown = capsys.readouterr().out
    assert f"precomputed in {stripped.name}" in shown
    assert "rooms" in shown
    assert "not usable" in shown


def test_a_vocabulary_of_another_text_encoder_is_not_used(bundle):
    bundle = add_vocabularies(bundle, {"voc-20": "voc-20", "rooms": "bed, sofa"})
    for name, path in bundle.vocabularies.items():
        foreign = dataclasses.replace(Vocabulary.load(bundle.path / path), text_hash="of another model")
        files = {**bundle.files}
        foreign.save(bundle.path / path)
        files[path] = {"size": (bundle.path / path).stat().st_size, "sha256": _hash(bundle.path / path)}
        bundle = dataclasses.replace(bundle, files=files)
        assert name in bundle.vocabularies
    (bundle.path / MANIFEST).unlink()
    (bundle.path / MANIFEST).write_text(json.dumps(bundle.manifest()))
    with Segmenter.from_pretrained(bundle.path) as segmenter:
        assert segmenter.set_classes("voc-20").text_hash == bundle.text_hash  # embedded anew
        with pytest.raises(VocabularyError, match="another text encoder"):
            segmenter.set_classes("rooms")


def _hash(path: Path) -> str:
    from pixelclip_sdk.support.files import sha256

    return sha256(path)


def test_write_vocabularies_needs_no_manifest(tmp_path):
    bundle = find_bundle("pixelclip-lite")
    files = write_vocabularies(tmp_path, TextEncoder(bundle), {"camvid-11": "camvid-11"})
    assert set(files) == {"vocabularies/camvid-11.npz"}
    assert files["vocabularies/camvid-11.npz"]["sha256"] == _hash(tmp_path / "vocabularies/camvid-11.npz")
    with pytest.raises(VocabularyError, match="cannot be named"):
        write_vocabularies(tmp_path, TextEncoder(bundle), {"../x": "cat"})
    with pytest.raises(VocabularyError, match="knows no part"):
        write_vocabularies(tmp_path, TextEncoder(bundle), {"fine": "cat", "emoji": "🐱"})
    assert set(contents(tmp_path)) == set(files)


def test_the_command_names_lists_and_files_and_asks_for_a_name_of_words(bundle, tmp_path, capsys):
    (tmp_path / "Rooms.txt").write_text("bed, bunk\nsofa\n")
    folder = str(bundle.path)
    assert main(["--bundle", folder, "--classes", "camvid-11"]) == 0
    assert main(["--bundle", folder, "--classes", str(tmp_path / "Rooms.txt")]) == 0
    assert main(["--bundle", folder, "--classes", "cat, dog", "--name", "pets"]) == 0
    assert set(Bundle.open(bundle.path).vocabularies) == {"camvid-11", "pets", "rooms"}
    capsys.readouterr()
    for arguments, message in {
        ("--classes", "cat, dog"): "--name",
        ("--classes", "camvid-12"): "Did you mean 'camvid-11'",
        ("--classes", str(bundle.path / "vocabularies" / "pets.npz")): "embedded already",
        ("--classes", "cat", "--name", "My Pets"): "cannot be named",
    }.items():
        assert main(["--bundle", folder, *arguments]) == 1
        assert message in capsys.readouterr().err
    assert main(["--bundle", "pixelclip-light", "--classes", "voc-20"]) == 1


def test_an_interrupt_is_reported_and_leaves_the_bundle(bundle, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(TextEncoder, "encode", interrupt)
    before = contents(bundle.path)
    assert main(["--bundle", str(bundle.path), "--classes", "camvid-11"]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert contents(bundle.path) == before


@pytest.mark.slow
def test_all_lists_fit_into_a_bundle(bundle):
    assert main(["--bundle", str(bundle.path), "--all"]) == 0
    changed = Bundle.open(bundle.path)
    changed.verify()
    assert "everyday-nouns" in changed.vocabularies


def test_a_bundle_without_a_text_encoder_cannot_embed(stripped, capsys):
    assert main(["--bundle", str(stripped.path), "--classes", "voc-20"]) == 1
    assert "no text encoder" in capsys.readouterr().err


def test_embedding_needs_no_torch():
    code = "import sys, export.embed_text; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
