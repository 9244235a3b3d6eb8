import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelclip_sdk import CheckpointError
from training.average import averaged, main
from training.models.lite.build import build_lite


def test_the_mean_lies_between():
    start = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    tuned = {"w": torch.tensor([3.0, -2.0]), "n": torch.tensor(9)}
    mean = averaged(start, tuned, 0.25)
    torch.testing.assert_close(mean["w"], torch.tensor([1.5, 1.0]))
    assert mean["n"] == 3
    torch.testing.assert_close(averaged(start, tuned, 1.0)["w"], tuned["w"])
    torch.testing.assert_close(start["w"], torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("tuned", "share", "said"),
    [
        ({"w": torch.zeros(3)}, 0.5, "another model"),
        ({"v": torch.zeros(2)}, 0.5, "another model"),
        ({"w": torch.zeros(2)}, 1.5, "0 \\(the start\\)"),
    ],
)
def test_other_models_and_shares_are_refused(tuned, share, said):
    with pytest.raises(CheckpointError, match=said):
        averaged({"w": torch.zeros(2)}, tuned, share)


def test_the_command_writes_weights_that_the_model_takes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    image = build_lite().image
    tuned = {name: weight.clone() for name, weight in image.state_dict().items()}
    tuned["ridge.bias"] += 1
    save_file(tuned, tmp_path / "tuned.safetensors")
    options = ["--model", "pixelclip-lite-start", "--tuned", str(tmp_path / "tuned.safetensors")]
    assert main([*options, "--share", "0.5", "--out", "~/mean.safetensors"]) == 0
    mean = load_file(tmp_path / "mean.safetensors")
    torch.testing.assert_close(mean["ridge.bias"], image.state_dict()["ridge.bias"] + 0.5)
    image.load_state_dict(mean)
    (tmp_path / "tuned.safetensors").write_bytes(b"no weights")
    assert main([*options, "--out", str(tmp_path / "other.safetensors")]) == 1
    assert "average:" in capsys.readouterr().err
    assert not (tmp_path / "other.safetensors").exists()
