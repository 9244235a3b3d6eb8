import os
import pickle
import random
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pixelclip_sdk import CheckpointError
from training.models.weights.reader import read_checkpoint


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_the_content_decides_the_format(tmp_path, kind):
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    path = tmp_path / "weights.bin"  # a name that says nothing
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    read = read_checkpoint(path)
    assert list(read) == ["a", "b"]
    for key, value in state.items():
        assert read[key].dtype == value.dtype
        torch.testing.assert_close(read[key], value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "name": "run", "optimizer": {"state": {}}},
        lambda state: {"model": {"state_dict": state}},
        # detectron2, with what its trainer and hooks leave there: numpy's numbers
        lambda state: {
            "model": OrderedDict(state),
            "optimizer": {"param_groups": [{"lr": np.float64(1e-4), "betas": (0.9, 0.999)}]},
            "scheduler": {"base_lrs": np.arange(3.0), "last_epoch": np.int64(7)},
            "iteration": 9999,
        },
    ],
)
def test_weights_are_found_in_their_wrappers(tmp_path, wrap, legacy):
    path = tmp_path / "weights.pth"
    torch.save(wrap({"a": torch.ones(2)}), path, _use_new_zipfile_serialization=not legacy)
    assert list(read_checkpoint(path)) == ["a"]


class Malice:
    """Makes a file when it is unpickled by Python."""

    def __init__(self, call, *arguments) -> None:
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("place", ["root", "nested", "beside", "behind numpy"])
@pytest.mark.parametrize("way", ["copy", "system", "exec"])
def test_code_in_a_pickle_does_not_run(tmp_path, kind, place, way):
    proof, path = tmp_path / "proof", tmp_path / "weights.pth"
    evil = {
        "copy": Malice(shutil.copyfile, __file__, str(proof)),
        "system": Malice(os.system, f"touch {proof}"),
        "exec": Malice(exec, f"import pathlib; pathlib.Path({str(proof)!r}).touch()"),
    }[way]
    weights = {"a": torch.ones(2)}
    content = {
        "root": evil,
        "nested": {"model": weights | {"b": [({"c": evil},)]}},
        "beside": {"model": weights, "optimizer": evil},
        "behind numpy": {"model": weights, "x": Malice(np.float64(1).__reduce__()[0], evil, b"")},
    }[place]
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not proof.exists()

    # The files are what they seem: Python's own reader would run them.
    if kind == "pickle" and place != "behind numpy":
        pickle.loads(path.read_bytes())
        assert proof.exists()


def test_the_message_names_the_refused_code(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"a": torch.ones(2)}, "config": Path("x")}, path)
    with pytest.raises(CheckpointError, match=r"contains code \(pathlib\.\S+\), which was not run"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)), path)
    with pytest.raises(CheckpointError, match=r"TorchScript archive.*clip-vit-b16"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html><body>Sign in", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "git lfs pull"),
        (b"Access denied\r\n", "it is text that begins with 'Access denied"),
        (bytes(range(3, 40)), "its first bytes are 03 04 05"),
        (b"\x80\x02", "is truncated or damaged"),
        (b"PK\x03\x04 and no more", "is truncated or damaged"),
        (b"\x10\0\0\0\0\0\0\0{not a header", "is damaged"),
    ],
)
def test_other_files_are_refused_with_their_kind(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_a_path_that_cannot_be_read(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*absent\.pth: No such file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="cannot read the checkpoint"):
        read_checkpoint(tmp_path)


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_other_archives_and_other_contents(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    with pytest.raises(CheckpointError, match=r"ZIP archive, but not a torch checkpoint \(a\.npy\)"):
        read_checkpoint(tmp_path / "arrays.npz")
    looped: dict[str, object] = {}
    looped["model"] = looped
    sparse = {"a": torch.eye(3).to_sparse()}
    for content, outline in [
        ([1, 2], "list"),
        ({"epoch": 3}, "dict with 'epoch'"),
        ({}, "no keys"),
        (torch.ones(2), "Tensor"),
        (looped, "'model'"),
        (sparse, "'a'"),
    ]:
        torch.save(content, tmp_path / "weights.pth")
        with pytest.raises(CheckpointError, match=rf"contains no named tensors \(found a .*{outline}"):
            read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_small_file_cannot_claim_gigabytes(tmp_path, legacy):
    """A stride of 0: 2 kB for a tensor of 2.6 GB, which a copy or a check of its values would allocate."""
    path = tmp_path / "weights.pth"
    huge = torch.zeros(1).expand(1 + 920**2, 768)
    torch.save({"visual.positional_embedding": huge}, path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 3000
    with pytest.raises(CheckpointError, match=r"visual\.positional_embedding claims 2600143872\."):
        read_checkpoint(path)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    path, packed = tmp_path / "weights.pth", tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(1_000_000)}, path)
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"but unpacks to 4\d{6}; torch writes uncompressed archives"):
        read_checkpoint(packed)


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_damaged_files_raise_checkpoint_errors(tmp_path, kind):
    path, state = tmp_path / "weights", {"a": torch.ones(4), "b": torch.ones(2, 2)}
    torch.save(state, path) if kind == "zip" else save_file(state, path)
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path = tmp_path / f"damaged{refused}"  # a new file: the last one may still be mapped
        path.write_bytes(damaged[: generator.choice([len(whole), generator.randrange(len(whole))])])
        try:
            assert all(isinstance(value, Tensor) for value in read_checkpoint(path).values())
        except CheckpointError:
            refused += 1
    assert refused > 50
