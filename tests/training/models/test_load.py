"""`load_model` on a small CLIP of its own configuration, and its errors."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pixelclip_sdk import BundleError, CheckpointError
from pixelclip_sdk.errors import ModelNotFoundError
from training.models.load import load_model

TINY = str(Path(__file__).parents[3] / "training" / "configs" / "tiny.json")


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(5)
    first = load_model(TINY, random_weights=True, seed=1).network.state_dict()
    again = load_model(TINY, random_weights=True, seed=1).network.state_dict()
    other = load_model(TINY, random_weights=True, seed=2).network.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))  # the caller's random state is unchanged


def test_a_checkpoint_is_the_state_of_the_network(tmp_path):
    start = load_model(TINY, random_weights=True)
    file = tmp_path / "mine.safetensors"
    save_file({key: value.contiguous() for key, value in start.network.state_dict().items()}, file)
    pair = load_model(TINY, checkpoint=file, seed=7, input_size=(64, 96))
    assert torch.equal(pair.image.tower.visual.proj, start.network.visual.proj)
    assert torch.equal(pair.text.text_projection, start.network.text_projection)
    assert pair.image.tower.visual is pair.network.visual
    assert pair.name == "tiny"
    assert (pair.input.height, pair.input.width) == (64, 96)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert pair.sources == ({"file": file.name, "license": "NOASSERTION", "sha256": sha256},)
    assert start.sources == ()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": TINY}, CheckpointError, "has no weights of its own: give a checkpoint"),
        (
            {"name": "pixelclip-lite", "random_weights": True},
            CheckpointError,
            "cannot start from random weights",
        ),
        ({"name": "clip-vit-b61"}, ModelNotFoundError, "clip-vit-b16"),
        ({"name": "clip-vit-b16", "input_size": (320, 330)}, BundleError, "width is 330; expected .* of 16"),
        (
            {"name": "pixelclip-lite", "input_size": (350, 448)},
            BundleError,
            "height is 350; expected .* of 32",
        ),
        (
            {"name": TINY, "checkpoint": Path("absent.pth")},
            CheckpointError,
            "cannot read the checkpoint absent",
        ),
    ],
)
def test_errors(monkeypatch, arguments, error, message):
    monkeypatch.setattr("training.models.weights.hub.fetch", None)  # raised before any download
    with pytest.raises(error, match=message):
        load_model(**arguments)
