"""Compilation with TensorRT-RTX, which needs no GPU for that."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import to_trt
from export import trt as networks
from export.to_trt import main
from export.trt import fold_storage
from pixelclip_sdk import Bundle, Vocabulary
from pixelclip_sdk.backends.engine import EngineInfo, engine_files
from pixelclip_sdk.backends.limits import Limits
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.files import sha256

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu12 has no wheel for this platform")

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)
DIM = 16


@pytest.fixture
def lite(tmp_path) -> Path:
    """A copy of the bundled model."""
    return Path(
        shutil.copytree(find_bundle("pixelclip-lite").path, tmp_path / "lite", ignore=lambda *_: ["engines"])
    )


def tiny_graph(kind: str = "fp32", *, first: str = "Cast") -> onnx.ModelProto:
    """A minimal image encoder: patches of 8 pixels, one linear layer, cosines; fixed 32×32 pixels.

    Args:
        kind: Precision of the patch layer.
        first: First operator on the uint8 image.
    """
    nodes, weights = [], []

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=f"node_{output}", **attributes))

    def weight(name, values):
        weights.append(numpy_helper.from_array(values, name))

    if first == "Cast":
        node("Cast", ["image"], "pixels", to=TensorProto.FLOAT)
        node("Transpose", ["pixels"], "channels", perm=[0, 3, 1, 2])
    else:
        node("Transpose", ["image"], "turned", perm=[0, 3, 1, 2])
        node("Cast", ["turned"], "channels", to=TensorProto.FLOAT)
    patch = RNG.normal(size=(DIM, 3, 8, 8)).astype(np.float32) / 100
    stem = {"kernel_shape": [8, 8], "strides": [8, 8]}
    if kind == "fp16":
        node("Cast", ["channels"], "half", to=TensorProto.FLOAT16)
        weight("patch", patch.astype(np.float16))
        node("Conv", ["half", "patch"], "stem.half", **stem)
        node("Conv", ["half", "patch"], "stem.half2", **stem)
        node("Add", ["stem.half", "stem.half2"], "stem.sum")
        node("Cast", ["stem.sum"], "stem", to=TensorProto.FLOAT)
    elif kind == "int8":
        scale = np.abs(patch).max(axis=(1, 2, 3)) / 127
        weight("patch.int8", np.rint(patch / scale[:, None, None, None]).astype(np.int8))
        weight("patch.scale", scale)
        weight("scale", np.float32(2))
        weight("zero", np.int8(0))
        weight("patch.zero", np.zeros(DIM, np.int8))
        node("QuantizeLinear", ["channels", "scale", "zero"], "channels.int8")
        node("DequantizeLinear", ["channels.int8", "scale", "zero"], "channels.dq")
        node("DequantizeLinear", ["patch.int8", "patch.scale", "patch.zero"], "patch.dq", axis=0)
        node("Conv", ["channels.dq", "patch.dq"], "stem.a", **stem)
        node("Conv", ["channels.dq", "patch.dq"], "stem.b", **stem)
        node("Add", ["stem.a", "stem.b"], "stem")
    else:
        weight("patch", patch)
        node("Conv", ["channels", "patch"], "stem", **stem)
    weight("epsilon", np.array([1e-6], np.float32))
    node("Transpose", ["stem"], "cells", perm=[0, 2, 3, 1])
    node("Abs", ["cells"], "size")
    node("ReduceMax", ["size"], "norm", keepdims=1)
    node("Add", ["norm", "epsilon"], "norm.safe")
    node("Div", ["cells", "norm.safe"], "features")
    node("Transpose", ["text"], "columns", perm=[1, 0])
    node("MatMul", ["features", "columns"], "cosines")
    node("Transpose", ["cosines"], "logits", perm=[0, 3, 1, 2])
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 32, 32, 3]),
            helper.make_tensor_value_info("text", TensorProto.FLOAT, ["K", DIM]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "K", 4, 4]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4, 4, DIM]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def bundle_of(model: onnx.ModelProto, folder: Path, precision: str) -> Path:
    folder.mkdir()
    file = folder / "image_encoder.onnx"
    onnx.save(model, file)
    manifest = {
        "schema_version": 1,
        "name": "tiny",
        "license": "MIT",
        "sources": [],
        "input": {
            "height": 32,
            "width": 32,
            "multiple": 8,
            "fixed": True,
            "keep_aspect": False,
            "batch": None,
        },
        "grid": [4, 4],
        "embedding_dim": DIM,
        "templates": ["{}"],
        "precision": precision,
        "verification": {},
        "files": {file.name: {"size": file.stat().st_size, "sha256": sha256(file)}},
    }
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def compile_rtx(*arguments: str | Path) -> int:
    return main(["--flavor", "tensorrt-rtx", *map(str, arguments)])


def test_the_name_of_an_open_clip_model_becomes_a_file_name(tmp_path):
    folder = bundle_of(tiny_graph(), tmp_path / "tiny", "fp32")
    manifest = json.loads((folder / "bundle.json").read_text()) | {"name": "open_clip:ViT-B-32/openai"}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    assert compile_rtx("--bundle", folder) == 0
    (plan,) = engine_files(folder)
    assert plan.name.startswith("open_clip-ViT-B-32-openai-tensorrt-rtx")


def test_the_documented_command_compiles_the_bundled_model(lite, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "export" / "to_trt.py"),
        "--bundle",
        "lite",
        "--flavor",
        "tensorrt-rtx",
    ]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "computes in fp32 (weights stored as int8)" in result.stdout
    bundle = Bundle.open(lite)
    bundle.verify()
    (plan,) = engine_files(lite)
    info = EngineInfo.read(plan)
    info.check_bundle(plan, onnx_sha256=bundle.files["image_encoder.onnx"]["sha256"], bundle=lite)
    assert (info.model, info.flavor, info.precision, info.stored_as) == (
        "pixelclip-lite",
        "tensorrt-rtx",
        "fp32",
        "int8",
    )
    assert (info.compute_capability, info.gpu) == ("8.0, 8.6, 8.9, 12.0, 12.1+", "")
    # All shapes that a picture of any shape can lead to; tests/…/test_preprocess.py has their limits.
    limits = Limits.of(info, bundle.embedding_dim)
    assert limits == Limits((1, 4), (192, 800), (192, 800), (1, 512))
    assert sorted(path.suffix for path in plan.parent.iterdir()) == [".json", ".plan"]


def test_the_plan_is_plain(lite):
    """Nothing comes before TensorRT's own header."""
    import tensorrt_rtx as trt

    assert compile_rtx("--bundle", lite) == 0
    (plan,) = engine_files(lite)
    content = plan.read_bytes()
    runtime = trt.Runtime(trt.Logger(trt.Logger.INTERNAL_ERROR))
    malformed = int(trt.EngineInvalidityDiagnostics.MALFORMED_ENGINE)
    assert not runtime.get_engine_validity(content)[1] & malformed
    assert runtime.get_engine_validity(b"{}" + content)[1] & malformed


def test_one_size_batch_and_number_of_classes(lite):
    assert compile_rtx("--bundle", lite, "--input-size", 320, 416, "--batch", 2, "--classes", 1, 8, 16) == 0
    (plan,) = engine_files(lite)
    assert "320x416" in plan.name
    limits = Limits.of(EngineInfo.read(plan), 384)
    assert limits == Limits((2, 2), (320, 320), (416, 416), (1, 16))
    assert limits.fixed_size == (320, 416)


def test_expanded_weights_compute_what_stored_ones_do():
    model = onnx.load(find_bundle("pixelclip-lite").file("image_encoder.onnx"))
    image = RNG.integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    inputs = {"image": image, "text": RNG.normal(size=(3, 384)).astype(np.float32)}

    def run():
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)

    before = run()
    assert fold_storage(model)
    assert {weight.data_type for weight in model.graph.initializer} <= {TensorProto.FLOAT, TensorProto.INT64}
    for one, other in zip(before, run(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert not fold_storage(model)


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8"])
def test_the_precision_is_read_off_the_network(tmp_path, kind, capsys):
    folder = bundle_of(tiny_graph(kind), tmp_path / "tiny", kind)
    assert compile_rtx("--bundle", folder, "--precision", kind) == 0, capsys.readouterr().err
    (plan,) = engine_files(folder)
    info = EngineInfo.read(plan)
    expected = {"fp32": {"fp32": 2}, "fp16": {"fp16": 2, "fp32": 1}, "int8": {"int8": 2, "fp32": 1}}
    assert info.precision == kind
    assert info.layers == expected[kind]


@pytest.mark.parametrize(("manifest", "options"), [("fp16", []), ("fp32", ["--precision", "fp16"])])
def test_an_fp32_engine_is_refused_where_fp16_was_promised(tmp_path, manifest, options, capsys):
    folder = bundle_of(tiny_graph("fp32"), tmp_path / "tiny", manifest)
    assert compile_rtx("--bundle", folder, *options) == 1
    error = capsys.readouterr().err
    assert "computes in fp32" in error
    assert len(error.splitlines()) == 1
    assert not engine_files(folder)


def test_an_int8_bundle_that_is_mostly_fp32_is_refused(tmp_path, capsys):
    """Weights that are only stored in int8 and fp16 do not count."""
    model = tiny_graph("fp32")
    (patch,) = (weight for weight in model.graph.initializer if weight.name == "patch")
    half = numpy_helper.from_array(numpy_helper.to_array(patch).astype(np.float16), "patch.half")
    patch.CopyFrom(half)
    cast = helper.make_node("Cast", ["patch.half"], ["patch"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    folder = bundle_of(model, tmp_path / "tiny", "int8")
    assert compile_rtx("--bundle", folder) == 1
    error = capsys.readouterr().err
    assert "manifest says int8, but the ONNX file computes in fp32" in error
    assert "0 of 2 convolutions and matrix products in int8" in error
    assert not engine_files(folder)
    assert compile_rtx("--bundle", folder, "--precision", "fp32") == 0
    assert "computes in fp32 (weights stored as int8), 2 of 2 products" in capsys.readouterr().out
    (plan,) = engine_files(folder)
    assert EngineInfo.read(plan).precision == "fp32"


def test_the_profile_follows_the_bundle(tmp_path):
    """Its fixed batch size, and its largest vocabulary."""
    model = tiny_graph()
    for value in [*model.graph.input[:1], *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    folder = bundle_of(model, tmp_path / "tiny", "fp32")
    rows = RNG.normal(size=(700, DIM)).astype(np.float32)
    words = Vocabulary(
        names=[f"word {i}" for i in range(700)], embeddings=rows / np.linalg.norm(rows, axis=1, keepdims=True)
    )
    file = words.save(folder / "vocabularies" / "many.npz")
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["input"]["batch"] = 2
    entry = {"size": file.stat().st_size, "sha256": sha256(file)}
    manifest["files"]["vocabularies/many.npz"] = entry
    (folder / "bundle.json").write_text(json.dumps(manifest))
    assert compile_rtx("--bundle", folder) == 0
    (plan,) = engine_files(folder)
    info = EngineInfo.read(plan)
    assert info.tensor("image").profile == ((2, 32, 32, 3),) * 3
    assert info.tensor("text").profile == ((1, DIM), (32, DIM), (700, DIM))
    assert info.options["batch"] == [2, 2, 2]
    assert "--classes 1 32 700" in info.rebuild_command(plan, folder)


def test_a_small_constant_after_a_cast_does_not_count_as_fp16(tmp_path, capsys):
    model = tiny_graph("fp32")
    for weight in model.graph.initializer:
        if weight.name == "epsilon":
            weight.CopyFrom(numpy_helper.from_array(np.array([1e-3], np.float16), "epsilon.half"))
    cast = helper.make_node("Cast", ["epsilon.half"], ["epsilon"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    assert compile_rtx("--bundle", bundle_of(model, tmp_path / "tiny", "fp16")) == 1
    assert "manifest says fp16, but the ONNX file computes in fp32" in capsys.readouterr().err


def test_weights_stored_in_int8_do_not_make_an_int8_engine(lite, capsys):
    assert compile_rtx("--bundle", lite, "--precision", "int8") == 1
    assert "computes in fp32 (its weights are only stored as int8)" in capsys.readouterr().err


def test_a_graph_that_tensorrt_cannot_compile_gives_one_line(tmp_path, capsys):
    folder = bundle_of(tiny_graph(first="Transpose"), tmp_path / "tiny", "fp32")
    assert compile_rtx("--bundle", folder) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert "UINT8" in error.upper()


def test_an_operator_that_tensorrt_lacks_is_named(tmp_path, capsys):
    model = tiny_graph()
    for node in model.graph.node:
        if node.op_type == "Abs":
            node.op_type, node.domain = "Sparkle", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert compile_rtx("--bundle", bundle_of(model, tmp_path / "tiny", "fp32")) == 1
    error = capsys.readouterr().err
    assert "Sparkle" in error
    assert "node_size" in error
    assert len(error.splitlines()) == 1


def test_an_onnx_file_that_changed_is_refused(tmp_path, capsys):
    folder = bundle_of(tiny_graph(), tmp_path / "tiny", "fp32")
    file = folder / "image_encoder.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    assert compile_rtx("--bundle", folder) == 1
    assert "was changed or damaged" in capsys.readouterr().err


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "engines").iterdir()}


def test_a_build_that_fails_leaves_the_older_engine(tmp_path, capsys):
    folder = bundle_of(tiny_graph(), tmp_path / "tiny", "fp32")
    assert compile_rtx("--bundle", folder) == 0
    before = content(folder)
    assert compile_rtx("--bundle", folder, "--workspace", 0) == 1
    assert compile_rtx("--bundle", folder, "--precision", "int8") == 1
    assert content(folder) == before
    assert capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_ends_the_build_and_leaves_the_older_engine(tmp_path, monkeypatch, capsys, number):
    folder = bundle_of(tiny_graph(), tmp_path / "tiny", "fp32")
    assert compile_rtx("--bundle", folder) == 0
    before = content(folder)
    armed = []
    monitor, make = networks.progress_monitor, to_trt.make_logger

    def begun(trt, stopped):
        armed.append(True)
        return monitor(trt, stopped)

    def logger_that_is_interrupted(trt):
        logger = make(trt)  # A new class at every call.
        original = type(logger).log

        def log(self, severity, message):
            original(self, severity, message)
            if armed and armed.pop():
                signal.raise_signal(number)  # TensorRT swallows exceptions of the Python code it calls.

        type(logger).log = log
        return logger

    monkeypatch.setattr(networks, "progress_monitor", begun)
    monkeypatch.setattr(to_trt, "make_logger", logger_that_is_interrupted)
    assert compile_rtx("--bundle", folder, "--classes", 7) == 130
    assert not armed
    assert content(folder) == before
    assert "interrupted" in capsys.readouterr().err
    monkeypatch.undo()
    assert compile_rtx("--bundle", folder, "--classes", 7) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", 4, 2, 1], "1 ≤ min ≤ opt ≤ max"),
        (["--batch", 1, 2], "2 numbers"),
        (["--batch", 10**20], "max < 2³¹"),
        (["--workspace", 10**14], "--workspace is 100000000000000"),
        (["--classes", 0], "--classes"),
        (["--imgsz", 33, 32], "height is 33; expected a positive multiple of 8, for example 32 or 40"),
        (
            ["--imgsz", 33, 31],
            "32 or 40, and width is 31; expected a positive multiple of 8, for example 24 or",
        ),
        (["--imgsz", 64, 64], "takes (32, 32) only"),
        (["--timing-cache", "cache"], "TensorRT-RTX measures no kernels"),
        (["--out", "bundle.json"], "cannot write"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path, monkeypatch, arguments, message, capsys):
    folder = bundle_of(tiny_graph(), tmp_path / "tiny", "fp32")
    monkeypatch.chdir(folder)
    assert compile_rtx("--bundle", folder, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_a_fixed_batch_size_is_named(tmp_path, capsys):
    model = tiny_graph()
    for value in (model.graph.input[0], *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    folder = bundle_of(model, tmp_path / "tiny", "fp32")
    assert compile_rtx("--bundle", folder) == 1
    assert "dimension 0 of image is fixed to 1" in capsys.readouterr().err
    assert compile_rtx("--bundle", folder, "--batch", 1) == 0


@pytest.mark.parametrize(
    ("flavor", "message"),
    [
        ("tensorrt", "pip install tensorrt"),
        ("tensorrt-rtx", "pip install tensorrt-rtx-cu12"),
        ("auto", "pip install tensorrt-rtx-cu12"),
    ],
)
def test_without_tensorrt_the_package_is_named(lite, flavor, message):
    code = (
        "import sys\n"
        "sys.modules.update(tensorrt=None, tensorrt_rtx=None)\n"
        "from export.to_trt import main\n"
        f"sys.exit(main(['--bundle', {str(lite)!r}, '--flavor', {flavor!r}]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
