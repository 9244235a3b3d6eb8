"""Write a model repository for Triton: ``python export/to_triton.py --bundle BUNDLE --out REPOSITORY``.

For a bundle ``NAME`` it holds ``NAME``, a model of Triton's Python backend that takes images and words
(`export/triton_model.py`), and ``NAME-onnx``, the image encoder alone for the ONNX Runtime backend. With
``--engine`` also ``NAME-tensorrt``, an engine of `to_trt.py` for the TensorRT backend. See docs/triton.md.
"""

import argparse
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx

from export.staging import staged_folder
from pixelclip_sdk import BackendError, Bundle, OutputError
from pixelclip_sdk.backends.engine import EngineInfo
from pixelclip_sdk.bundle import IMAGE_ENCODER, MANIFEST
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.serve.tensors import INPUTS, OUTPUTS, Tensor
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command

__all__ = ["engine_config", "main", "onnx_config", "words_config", "write_repository"]

_MODEL = Path(__file__).with_name("triton_model.py")
# numpy's name → Open Inference Protocol's.
_DATATYPES = {"uint8": "UINT8", "float16": "FP16", "float32": "FP32"}


def write_repository(bundle: Bundle, out: Path, engine: Path | None = None) -> list[str]:
    """Write a model repository and return the names of its models.

    The folder appears in one step, complete, or not at all.

    Args:
        bundle: The model. Its files are copied.
        out: A folder that does not exist or is empty.
        engine: A plan of `to_trt.py` that was compiled from this bundle.

    Raises:
        OutputError: The folder has files, or cannot be written.
        BundleError: A file of the bundle was changed.
        BackendError: The engine is of another model, or not for Triton.
    """
    _check_free(out)
    # Characters that a folder of Triton's cannot have, as in names of open_clip's models.
    name = re.sub(r"[^\w.-]+", "-", bundle.name)
    configs = {name: words_config(name), f"{name}-onnx": onnx_config(f"{name}-onnx", bundle)}
    if engine is not None:
        configs[f"{name}-tensorrt"] = engine_config(f"{name}-tensorrt", bundle, engine)
    with staged_folder(out) as folder:
        _check_free(out)  # Another process may have written it while this one waited.
        for model, config in configs.items():
            (folder / model / "1").mkdir(parents=True)
            (folder / model / "config.pbtxt").write_text(config, encoding="utf-8")
        shutil.copyfile(_MODEL, folder / name / "1" / "model.py")
        for file in (MANIFEST, *bundle.files):
            copy = folder / name / "1" / "bundle" / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / file if file == MANIFEST else bundle.file(file), copy)
        shutil.copyfile(bundle.file(IMAGE_ENCODER), folder / f"{name}-onnx" / "1" / "model.onnx")
        if engine is not None:
            shutil.copyfile(engine, folder / f"{name}-tensorrt" / "1" / "model.plan")
    return list(configs)


def words_config(name: str) -> str:
    """The configuration of the Python model."""
    return _config(name, 'backend: "python"', INPUTS, OUTPUTS) + (
        "# More instances answer more requests at once; they share the cores.\n"
        "instance_group [{ kind: KIND_CPU, count: 1 }]\n"
    )


def onnx_config(name: str, bundle: Bundle) -> str:
    """The configuration of a bundle's image encoder, with the shapes that its file states."""
    graph = onnx.load(bundle.file(IMAGE_ENCODER), load_external_data=False).graph
    inputs, outputs = map(_tensors, (graph.input, graph.output))
    return _config(name, 'platform: "onnxruntime_onnx"', inputs, outputs)


def engine_config(name: str, bundle: Bundle, engine: Path) -> str:
    """The configuration of an engine, with the shapes that its sidecar states."""
    info = EngineInfo.read(engine)
    info.check_bundle(engine, onnx_sha256=bundle.image_hash, bundle=bundle.path)
    if info.flavor != "tensorrt":
        raise BackendError(
            f"{engine} is an engine of {info.flavor}; Triton runs those of TensorRT. "
            f"Compile one with export/to_trt.py --bundle {bundle.path} --flavor tensorrt"
        )
    tensors = {
        mode: [Tensor(t.name, _DATATYPES[t.dtype], t.shape) for t in info.tensors if t.mode == mode]
        for mode in ("input", "output")
    }
    return _config(name, 'platform: "tensorrt_plan"', tensors["input"], tensors["output"])


def _tensors(values: Iterable[onnx.ValueInfoProto]) -> list[Tensor]:
    found = []
    for value in values:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        found.append(Tensor(value.name, _DATATYPES[str(dtype)], shape))
    return found


def _config(name: str, runtime: str, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> str:
    """A `config.pbtxt`. All dimensions are explicit: words have no batch dimension, which Triton's needs."""
    parts = [
        f'name: "{name}"',
        runtime,
        "max_batch_size: 0  # All dimensions are below; -1 varies from request to request.",
        "version_policy { specific { versions: [1] } }",
    ]
    for key, tensors in (("input", inputs), ("output", outputs)):
        for tensor in tensors:
            kind = "TYPE_" + ("STRING" if tensor.datatype == "BYTES" else tensor.datatype)
            dims = ", ".join(map(str, tensor.shape))
            optional = ", optional: true" if tensor.optional else ""
            parts.append(f'{key} [{{ name: "{tensor.name}", data_type: {kind}, dims: [{dims}]{optional} }}]')
    return "\n".join(parts) + "\n"


def _check_free(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(
            f"{out} exists already; choose another folder, or remove it. To add models to a repository, "
            "write a new one and move its folders"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `run_command`."""
    parser = argparse.ArgumentParser(prog="to_triton.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", required=True, help="the bundle's folder, or a model's name")
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="a new folder")
    text = "also an engine of to_trt.py, compiled from this bundle with --flavor tensorrt"
    parser.add_argument("--engine", type=path, metavar="FILE.plan", help=text)
    options = parser.parse_args(arguments)
    return run_command("to_triton", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    names = write_repository(find_bundle(options.bundle), options.out, options.engine)
    print(f"{options.out}: {', '.join(names)}")
    print(
        "next: install pixelclip-sdk where Triton runs, and start "
        f"tritonserver --model-repository {options.out} (docs/triton.md)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
