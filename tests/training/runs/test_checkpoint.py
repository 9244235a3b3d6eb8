import logging
import resource
import subprocess
import sys

import pytest
import torch

from pixelclip_sdk.errors import CheckpointError, OutputError
from training.runs import checkpoint


def save(folder, step, keep=2, size=10):
    tensors = {"a": torch.full((size,), float(step))}
    notes = {"config": {"x": 1}}
    checkpoint.save(
        folder, step, weights=tensors, state={"b": tensors["a"].view(2, -1).T}, notes=notes, keep=keep
    )


def test_the_newest_comes_back_and_old_ones_go(tmp_path):
    assert checkpoint.newest(tmp_path) is None
    for step in (1, 5, 10, 200):
        save(tmp_path, step)
    found = checkpoint.newest(tmp_path)
    assert found.step == 200
    assert found.notes["config"] == {"x": 1}
    assert torch.equal(found.state["b"], torch.full((5, 2), 200.0))
    assert checkpoint.weights_file(tmp_path, 200).exists()
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"step-00000010", "step-00000200"}
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("part", ["weights.safetensors", "state.safetensors", "json"])
def test_a_damaged_one_is_passed_over_and_named(tmp_path, caplog, part):
    save(tmp_path, 1)
    save(tmp_path, 2)
    file = tmp_path / f"step-00000002.{part}"
    file.write_bytes(file.read_bytes()[:-5])
    with caplog.at_level(logging.WARNING):
        assert checkpoint.newest(tmp_path).step == 1
    assert "step-00000002" in caplog.text
    file = tmp_path / f"step-00000001.{part}"
    file.unlink()
    if part != "json":
        with pytest.raises(CheckpointError, match="no checkpoint"):
            checkpoint.newest(tmp_path)


def test_a_run_that_went_on_from_an_earlier_one_drops_the_later(tmp_path):
    for step in (4, 5, 6):
        save(tmp_path, step, keep=3)
    file = tmp_path / "step-00000006.state.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    save(tmp_path, 5, keep=1)
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"step-00000005"}
    assert checkpoint.newest(tmp_path).step == 5


def test_a_save_that_did_not_end_is_not_seen(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "step-00000002.json").unlink()
    assert checkpoint.newest(tmp_path).step == 1
    save(tmp_path, 3)
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"step-00000001", "step-00000003"}


@pytest.mark.parametrize("name", ["step-00000002.state.safetensors", "step-00000002.json"])
def test_what_a_killed_save_was_writing_goes(tmp_path, name):
    code = "import os, sys\nfrom pixelclip_sdk.support.files import atomic_write\n"
    code += "with atomic_write(sys.argv[1]) as file:\n file.write_text('half')\n os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / name)]).returncode == 9
    assert list(tmp_path.iterdir())
    save(tmp_path, 3)
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {"step-00000003"}


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    """A limit on the size of files: the system then refuses to write, as on a full disk."""
    save(tmp_path, 1)
    before = sorted(tmp_path.iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*step-00000002"):
            save(tmp_path, 2, keep=1, size=1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(tmp_path.iterdir()) == before
    assert checkpoint.newest(tmp_path).step == 1
