"""Model repositories for Triton: complete or not there, with configurations that fit the files."""

import dataclasses
import hashlib
import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.to_triton import main, write_repository
from pixelclip_sdk import BackendError, Bundle, OutputError, PixelClipError
from pixelclip_sdk.backends.engine import EngineInfo, TensorInfo, system
from pixelclip_sdk.bundle import IMAGE_ENCODER, MANIFEST
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.serve import tensors

LITE = find_bundle("pixelclip-lite")


def config(file: Path):
    """Triton's own definition reads the file: unknown fields and wrong types raise."""
    # The module alone: its package needs grpcio.
    package = importlib.util.find_spec("tritonclient").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("pb2", Path(package) / "grpc" / "model_config_pb2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    from google.protobuf import text_format

    return text_format.Parse(file.read_text(), module.ModelConfig()), module.DataType


def signature(values, names) -> dict[str, tuple[str, list[int]]]:
    return {value.name: (names.Name(value.data_type), list(value.dims)) for value in values}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "repository"
    assert write_repository(LITE, out) == ["pixelclip-lite", "pixelclip-lite-onnx"]
    return out


def test_the_onnx_configuration_is_that_of_the_file(repository):
    parsed, types = config(repository / "pixelclip-lite-onnx" / "config.pbtxt")
    session = onnxruntime.InferenceSession(repository / "pixelclip-lite-onnx" / "1" / "model.onnx")
    expected = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}

    def stated(values):
        return {
            value.name: (expected[value.type], [d if isinstance(d, int) else -1 for d in value.shape])
            for value in values
        }

    assert signature(parsed.input, types) == stated(session.get_inputs())
    assert signature(parsed.output, types) == stated(session.get_outputs())
    assert stated(session.get_inputs())["text"] == ("TYPE_FP32", [-1, 384])  # K is an input's size.
    assert (parsed.name, parsed.platform) == ("pixelclip-lite-onnx", "onnxruntime_onnx")
    assert parsed.max_batch_size == 0
    assert list(parsed.version_policy.specific.versions) == [1]


def test_the_words_configuration_has_the_tensors_of_the_server(repository):
    parsed, types = config(repository / "pixelclip-lite" / "config.pbtxt")
    names = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}
    for values, expected in ((parsed.input, tensors.INPUTS), (parsed.output, tensors.OUTPUTS)):
        assert signature(values, types) == {
            tensor.name: (names[tensor.datatype], list(tensor.shape)) for tensor in expected
        }
    assert [value.name for value in parsed.input if not value.optional] == ["words"]
    assert (parsed.name, parsed.backend, parsed.max_batch_size) == ("pixelclip-lite", "python", 0)


def test_the_bundle_is_copied_whole(repository):
    copy = Bundle.open(repository / "pixelclip-lite" / "1" / "bundle")
    copy.verify()
    assert copy.manifest() == LITE.manifest()
    onnx_file = repository / "pixelclip-lite-onnx" / "1" / "model.onnx"
    assert hashlib.sha256(onnx_file.read_bytes()).hexdigest() == LITE.image_hash


def test_names_that_cannot_be_folders_are_changed(tmp_path):
    names = write_repository(dataclasses.replace(LITE, name="open_clip:ViT-B-16/laion"), tmp_path / "out")
    assert names == ["open_clip-ViT-B-16-laion", "open_clip-ViT-B-16-laion-onnx"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_the_command_says_what_comes_next(tmp_path, capsys):
    assert main(["--bundle", "pixelclip-lite", "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "pixelclip-lite, pixelclip-lite-onnx" in output
    assert f"tritonserver --model-repository {tmp_path / 'out'}" in output


@pytest.mark.parametrize("kind", ["folder", "file", "bundle"])
def test_nothing_is_overwritten(tmp_path, capsys, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / (MANIFEST if kind == "bundle" else "note.txt")).write_text("mine")
    assert main(["--bundle", "pixelclip-lite", "--out", str(out)]) == 1
    assert "exists already; choose another folder" in capsys.readouterr().err
    assert next(iter(out.iterdir()), out).read_text() == "mine" if out.is_dir() else out.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_another_process_wrote_meanwhile_stays(tmp_path, monkeypatch):
    """The second process waits for the lock of the first."""
    out = tmp_path / "out"
    from export import to_triton

    def slow(*_):
        out.mkdir()
        (out / "theirs").write_text("theirs")
        return "config"

    monkeypatch.setattr(to_triton, "onnx_config", slow)
    with pytest.raises(PixelClipError, match="exists"):
        write_repository(LITE, out)
    assert [path.name for path in out.iterdir()] == ["theirs"]


def test_a_damaged_bundle_leaves_nothing_behind(tmp_path, capsys):
    bundle = shutil.copytree(LITE.path, tmp_path / "bundle")
    file = bundle / "tokenizer.json"
    file.write_bytes(b"x" * file.stat().st_size)
    assert main(["--bundle", str(bundle), "--out", str(tmp_path / "out")]) == 1
    assert "tokenizer.json was changed or damaged" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def tensor(name: str, mode: str, dtype: str, shape: tuple, profile: tuple | None = None) -> TensorInfo:
    return TensorInfo(name=name, mode=mode, dtype=dtype, shape=shape, profile=profile)


def engine(folder: Path, **changes) -> Path:
    """A sidecar as `to_trt.py` writes it; the plan itself is never read here."""
    plan = folder / "lite.plan"
    plan.write_bytes(b"plan")
    profile = tuple((n, 352, 448, 3) for n in (1, 1, 4))
    fields = {
        "model": "pixelclip-lite",
        "flavor": "tensorrt",
        "tensorrt_version": "10.13.0",
        "compute_capability": "8.7",
        "gpu": "Orin",
        "system": system(),
        "precision": "fp16",
        "layers": {"fp16": 60},
        "stored_as": "fp16",
        "tensors": (
            tensor("image", "input", "uint8", (-1, 352, 448, 3), profile),
            tensor("text", "input", "float32", (-1, 384), ((1, 384), (32, 384), (512, 384))),
            tensor("logits", "output", "float32", (-1, -1, 11, 14)),
            tensor("features", "output", "float32", (-1, 11, 14, 384)),
        ),
        "onnx_sha256": LITE.files[IMAGE_ENCODER]["sha256"],
        "plan_size": 4,
        "plan_sha256": hashlib.sha256(b"plan").hexdigest(),
        "options": {},
    }
    plan.with_suffix(".json").write_text(EngineInfo(**fields | changes).to_json())
    return plan


def test_an_engine_is_a_model_of_its_own(tmp_path):
    names = write_repository(LITE, tmp_path / "out", engine(tmp_path))
    assert names[2] == "pixelclip-lite-tensorrt"
    parsed, types = config(tmp_path / "out" / names[2] / "config.pbtxt")
    assert (parsed.platform, parsed.max_batch_size) == ("tensorrt_plan", 0)
    assert signature(parsed.input, types) == {
        "image": ("TYPE_UINT8", [-1, 352, 448, 3]),
        "text": ("TYPE_FP32", [-1, 384]),
    }
    assert signature(parsed.output, types)["logits"] == ("TYPE_FP32", [-1, -1, 11, 14])
    assert (tmp_path / "out" / names[2] / "1" / "model.plan").read_bytes() == b"plan"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flavor": "tensorrt-rtx"}, "Triton runs those of TensorRT"),
        ({"onnx_sha256": "0" * 64}, "ONNX"),
    ],
)
def test_an_engine_that_triton_cannot_use_is_refused(tmp_path, changes, message):
    with pytest.raises(BackendError, match=message):
        write_repository(LITE, tmp_path / "out", engine(tmp_path, **changes))
    assert not (tmp_path / "out").exists()


def test_a_missing_engine_is_an_error(tmp_path, capsys):
    plan = str(tmp_path / "none.plan")
    assert main(["--bundle", "pixelclip-lite", "--out", str(tmp_path / "out"), "--engine", plan]) == 1
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    write_repository(LITE, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "pixelclip-lite" / "1" / "bundle" / MANIFEST).read_text())
    with pytest.raises(OutputError):
        write_repository(LITE, tmp_path / "out")


def test_the_guide_s_client_of_the_encoder_runs(repository, lite, tmp_path, monkeypatch):
    """With ONNX Runtime in the place of Triton's backend."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "triton.md").read_text(encoding="utf-8")
    code = re.search(r"^```py\n(from pixelclip_sdk.*?)^```", page, re.M | re.S)[1]
    code = code.replace('["cat", "sofa", "wall"]', '["cup", "table", "spoon"]')
    shutil.copy(root / "examples" / "photos" / "coffee.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)

    def infer(name: str, inputs: dict) -> dict:
        session = onnxruntime.InferenceSession(repository / name / "1" / "model.onnx")
        return {"logits": session.run(["logits"], inputs)[0]}

    found: dict = {"infer": infer}
    exec(code, found)
    found["segmenter"].close()
    expected = lite.with_classes(["cup", "table", "spoon"]).predict("photo.jpg", refine="off").labels
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(found["labels"], expected)
