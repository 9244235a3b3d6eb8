import dataclasses
import json
import re
from pathlib import Path

import pytest

from pixelclip_sdk import BackendError
from pixelclip_sdk.backends.engine import EngineInfo, TensorInfo, engine_files, is_trusted, system, trust
from pixelclip_sdk.support.files import sha256

ONNX = "0123456789abcdef" * 4
BUNDLE = Path("models/my bundle")
IMAGE = TensorInfo(
    name="image",
    mode="input",
    dtype="uint8",
    shape=(-1, 64, 64, 3),
    profile=((1, 64, 64, 3), (1, 64, 64, 3), (4, 64, 64, 3)),
)


@pytest.fixture
def engine(tmp_path) -> tuple[Path, EngineInfo]:
    """A plan of known content, with its sidecar."""
    plan = tmp_path / "engines" / "model.plan"
    plan.parent.mkdir()
    plan.write_bytes(b"plan" * 1000)
    info = EngineInfo(
        model="model",
        flavor="tensorrt",
        tensorrt_version="10.13.3.9",
        compute_capability="8.6",
        gpu="NVIDIA GeForce RTX 3090",
        system=system(),
        precision="fp16",
        layers={"fp16": 74, "fp32": 1},
        stored_as="fp16",
        tensors=(IMAGE,),
        onnx_sha256=ONNX,
        plan_size=4000,
        plan_sha256=sha256(plan),
        options={"batch": [1, 1, 4], "classes": [1, 32, 512], "input_size": [64, 64], "workspace_mb": None},
    )
    plan.with_suffix(".json").write_text(info.to_json())
    return plan, info


def test_a_sidecar_comes_back_as_it_was_written(engine):
    plan, info = engine
    assert EngineInfo.read(plan) == info
    assert json.loads(info.to_json())["tensors"][0]["profile"][2] == [4, 64, 64, 3]


COMMAND = (
    "python export/to_trt.py --bundle 'models/my bundle' --flavor tensorrt "
    "--batch 1 1 4 --classes 1 32 512 --input-size 64 64 --out "
)


def test_a_whole_engine_of_this_bundle_and_machine_passes(engine):
    plan, info = engine
    info.check_bundle(plan, onnx_sha256=ONNX, bundle=BUNDLE)
    info.check_tensorrt(plan, flavor="tensorrt", version="10.13.3.9", bundle=BUNDLE)
    info.check_gpu(plan, compute_capability="8.6", bundle=BUNDLE)


@pytest.mark.parametrize(
    ("flavor", "version", "said"),
    [
        ("tensorrt-rtx", "10.13.3.9", "flavour of TensorRT is tensorrt-rtx; .* compiled for tensorrt"),
        ("tensorrt", "10.13.3.10", r"version of tensorrt is 10\.13\.3\.10; .* 10\.13\.3\.9"),
    ],
)
def test_another_tensorrt_is_refused_with_the_command_that_helps(engine, flavor, version, said):
    plan, info = engine
    with pytest.raises(BackendError, match=said) as error:
        info.check_tensorrt(plan, flavor=flavor, version=version, bundle=BUNDLE)
    assert str(error.value).endswith(f"{COMMAND}{plan.parent}")


def test_a_tensorrt_engine_of_another_system_is_refused_and_a_portable_one_is_not(engine):
    plan, info = engine
    other = dataclasses.replace(info, system="Windows AMD64")
    with pytest.raises(BackendError, match="Windows AMD64"):
        other.check_tensorrt(plan, flavor="tensorrt", version="10.13.3.9", bundle=BUNDLE)
    portable = dataclasses.replace(other, flavor="tensorrt-rtx")
    portable.check_tensorrt(plan, flavor="tensorrt-rtx", version="10.13.3.9", bundle=BUNDLE)


@pytest.mark.parametrize(
    ("compiled_for", "found", "runs"),
    [
        ("8.6", "8.6", True),
        ("8.6", "8.9", False),
        ("8.6", "7.5", False),
        ("8.0, 8.6, 8.9, 12.0+", "7.5", False),
        ("8.0, 8.6, 8.9, 12.0+", "8.0", True),
        ("8.0, 8.6, 8.9, 12.0+", "8.7", False),
        ("8.0, 8.6, 8.9, 12.0+", "9.0", False),
        ("8.0, 8.6, 8.9, 12.0+", "12.1", True),
    ],
)
def test_a_gpu_of_another_capability_is_refused(engine, compiled_for, found, runs):
    plan, info = engine
    info = dataclasses.replace(info, compute_capability=compiled_for)
    if runs:
        info.check_gpu(plan, compute_capability=found, bundle=BUNDLE)
        return
    with pytest.raises(
        BackendError, match=f"capability is {re.escape(found)}; .* {re.escape(compiled_for)}\\."
    ) as error:
        info.check_gpu(plan, compute_capability=found, bundle=BUNDLE)
    assert str(error.value).endswith(f"{COMMAND}{plan.parent}")


def test_a_model_that_was_exported_again_is_noticed(engine):
    plan, info = engine
    with pytest.raises(BackendError, match=r"hash of its ONNX file is ffffffffffff; .* 0123456789ab"):
        info.check_bundle(plan, onnx_sha256="f" * 64, bundle=BUNDLE)


def test_a_plan_cut_short_is_noticed(engine):
    plan, info = engine
    plan.write_bytes(plan.read_bytes()[:-1])
    with pytest.raises(BackendError, match=r"size in bytes is 3999; .* 4000"):
        info.check_bundle(plan, onnx_sha256=ONNX, bundle=BUNDLE)


def test_a_plan_with_one_other_byte_is_noticed(engine):
    plan, info = engine
    plan.write_bytes(b"q" + plan.read_bytes()[1:])
    with pytest.raises(BackendError, match="SHA-256"):
        info.check_bundle(plan, onnx_sha256=ONNX, bundle=BUNDLE)


def test_a_missing_plan_is_an_error_of_the_tree(engine):
    plan, info = engine
    plan.unlink()
    with pytest.raises(BackendError, match="cannot be read"):
        info.check_bundle(plan, onnx_sha256=ONNX, bundle=BUNDLE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda fields: fields.update(schema_version=2), "schema version 2"),
        (lambda fields: fields.pop("gpu"), "gpu"),
        (lambda fields: fields.update(colour="red"), "colour"),
        (lambda fields: fields.update(onnx_sha256=None), "onnx_sha256 is None; expected a str"),
        (lambda fields: fields.update(plan_size="4000"), "plan_size is '4000'; expected a int"),
        (lambda fields: fields.update(flavor="tensorflow"), "tensorflow"),
        (lambda fields: fields.update(compute_capability="new"), "'new'"),
        (lambda fields: fields.update(tensors=[1]), "not a sidecar"),
        (lambda fields: fields["tensors"][0].update(profile=None), "profile None"),
        (lambda fields: fields["tensors"][0].update(profile=[[1], [1], [1]]), "three shapes of 4"),
        (
            lambda fields: fields["tensors"][0].update(profile=[[2, 64, 64, 3]] + [[1, 64, 64, 3]] * 2),
            "min ≤",
        ),
    ],
)
def test_a_sidecar_that_says_nonsense_is_refused(engine, change, said):
    plan, info = engine
    fields = json.loads(info.to_json())
    change(fields)
    plan.with_suffix(".json").write_text(json.dumps(fields))
    with pytest.raises(BackendError, match=said):
        EngineInfo.read(plan)


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_sidecar_that_cannot_be_read_is_refused(engine, content):
    plan, _ = engine
    sidecar = plan.with_suffix(".json")
    sidecar.unlink() if content is None else sidecar.write_bytes(content)
    with pytest.raises(BackendError):
        EngineInfo.read(plan)


def test_engine_files_are_those_of_the_bundle(engine, tmp_path):
    plan, _ = engine
    (plan.parent / ".model-half.plan").write_bytes(b"being written")
    assert engine_files(tmp_path) == [plan]
    (plan.parent / "gone.plan").symlink_to("nowhere")
    assert engine_files(tmp_path) == [plan, plan.parent / "gone.plan"]
    assert engine_files(plan.parent) == []


def test_the_command_repeats_what_was_asked_for(engine, tmp_path):
    plan, info = engine
    asked = dataclasses.replace(info, options={"precision": "fp16", "workspace_mb": 512})
    assert asked.rebuild_command(plan, tmp_path).endswith("--precision fp16 --workspace 512")


def test_the_command_names_no_folder_for_an_engine_in_its_bundle(engine, tmp_path):
    plan, info = engine
    assert "--out" not in info.rebuild_command(plan, tmp_path)


def test_only_recorded_engines_are_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path))
    assert not is_trusted("a" * 64)
    trust("a" * 64)
    assert is_trusted("a" * 64)
    assert not is_trusted("b" * 64)
    (tmp_path / "file").touch()
    assert not is_trusted("../file")  # A sidecar may hold anything.


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PIXELCLIP_HOME", str(tmp_path / "file"))
    trust("a" * 64)
    assert 'use backend="tensorrt"' in caplog.text
    assert not is_trusted("a" * 64)
