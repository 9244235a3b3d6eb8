"""The alignment with photos and words: the command on real photos, and what its file does to the model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelclip_sdk import CheckpointError, Segmenter, Vocabulary
from training.align import main
from training.models.lite.weights import weights_of
from training.models.load import load_model
from training.models.runtime import TorchBackend, TorchTextEncoder

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / "training" / "configs" / "pixelclip-lite-words.yaml")


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """Two photos with words that mean nothing: only these photos can teach them."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("chelsea", "coffee"):
        shutil.copy(ROOT / "examples" / "photos" / f"{name}.jpg", folder)
        shutil.copy(ROOT / "examples" / "photos" / f"{name}.jpg", folder / f"{name}-2.jpg")
    words = {f"chelsea{n}.jpg": ["zorblat"] for n in ("", "-2")} | {
        f"coffee{n}.jpg": ["A cup of coffee on a table"] for n in ("", "-2")
    }
    (folder / "words.json").write_text(json.dumps(words))
    options = [f"photos={folder}", f"words={folder / 'words.json'}", "competitors=[]", "min_cells=10"]
    for name in ("one", "two"):
        assert (
            main(
                [
                    "--config",
                    CONFIG,
                    *options,
                    "anchor_cells=20",
                    "anchor_photos=2",
                    f"out={folder / name}.safetensors",
                ]
            )
            == 0
        )
    return folder


def areas(checkpoint: Path | None) -> dict[str, float]:
    pair = load_model("pixelclip-lite", checkpoint=checkpoint)
    words = Vocabulary.encode(["zorblat", "cup of coffee", "sofa", "fence"], TorchTextEncoder(pair))
    segmenter = Segmenter(TorchBackend(pair), pair.input, vocabulary=words)
    return segmenter.predict(ROOT / "examples" / "photos" / "chelsea.jpg").areas()


def test_a_word_is_learnt_from_photos(aligned):
    before, after = areas(None)["zorblat"], areas(aligned / "one.safetensors")["zorblat"]
    assert before < 0.5 < 0.9 < after


def test_the_same_settings_give_the_same_file(aligned):
    assert (aligned / "one.safetensors").read_bytes() == (aligned / "two.safetensors").read_bytes()


def test_only_the_map_and_the_anchors_change(aligned):
    before, after = weights_of(load_model("pixelclip-lite")), load_file(aligned / "one.safetensors")
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert changed == {"ridge.weight", "ridge.bias", "text.anchors", "text.places"}
    # Those that ship are stored in int8.
    np.testing.assert_allclose(after["text.places"].norm(dim=-1), 1, atol=3e-3)


def test_words_that_are_anchors_already_are_not_added_again(aligned):
    options = [f"photos={aligned}", f"words={aligned / 'words.json'}", "competitors=[]", "rounds=0"]
    checkpoint = f"checkpoint={aligned / 'one.safetensors'}"
    assert (
        main(
            [
                "--config",
                CONFIG,
                *options,
                checkpoint,
                "anchor_cells=20",
                "anchor_photos=2",
                f"out={aligned}/3.safetensors",
            ]
        )
        == 0
    )
    one, again = load_file(aligned / "one.safetensors"), load_file(aligned / "3.safetensors")
    assert one["text.anchors"].shape == again["text.anchors"].shape
    assert torch.equal(one["ridge.weight"], again["ridge.weight"])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("share=2", "share is 2.0; expected 0"),
        ("rounds=-1", "rounds is -1; expected 0 or more"),
        ("min_cells=0", "min_cells is 0; expected more than 0"),
        ("min_cells=9999", "no word has 9999 cells"),
        ("words=nowhere.json", "cannot read words from nowhere.json"),
        ("shares=1", "unknown setting 'shares'. Did you mean share"),
    ],
)
def test_settings_that_cannot_be_used(aligned, setting, said, capsys):
    options = [f"photos={aligned}", f"words={aligned / 'words.json'}", f"out={aligned / 'no.safetensors'}"]
    assert main(["--config", CONFIG, *options, setting]) == 1
    assert said in capsys.readouterr().err
    assert not (aligned / "no.safetensors").exists()


def test_anchors_that_do_not_fit_are_refused(aligned, tmp_path):
    weights = load_file(aligned / "one.safetensors")
    weights["text.places"] = weights["text.places"][:-1].contiguous()
    save_file(weights, tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match=r"expected text\.anchors and text\.places"):
        load_model("pixelclip-lite", checkpoint=tmp_path / "bad.safetensors")
