"""Export a model as a bundle: ``python export/to_onnx.py --model pixelclip-vit-b16 --out DIR``.

The bundle is built in a folder beside `DIR`, compared with its PyTorch source on real photos, and moved into
place at the end. If anything fails, an older bundle in `DIR` stays unchanged.
"""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.export import Dim

from export.embed_text import file_entry, write_vocabularies
from export.graph.lean import LeanImageEncoder
from export.graph.lean_lite import LeanLiteEncoder
from export.graph.trace import trace
from export.options import DEFAULT_NAME, check_weights, photos_to_verify_on, vocabularies
from export.photos import default_photos, photos_in
from export.precision.calibration import Batch
from export.precision.fp16 import to_fp16
from export.precision.int8 import to_int8
from export.precision.layers import LayerReport
from export.precision.storage import store_fp16, store_int8
from export.staging import check_target, staged_folder
from export.verify import GATES, WORDS, VerificationError, check_gate, verify
from pixelclip_sdk import Bundle, PixelClipError, Vocabulary
from pixelclip_sdk.bundle import IMAGE_ENCODER, MANIFEST, TEXT_ENCODER, TOKENIZER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.preprocess import fit
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.classes import Classes
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models import registry
from training.models.dense import DenseImageEncoder
from training.models.lite.build import LiteImageEncoder
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.registry import LITES
from training.models.runtime import TorchTextEncoder

__all__ = ["GATES", "export_bundle", "main", "photo_batches", "trace_image_encoder"]

# Added to the int8 gate on the calibration photos, since other photos may agree a little less.
_INT8_MARGIN = 0.005


def export_bundle(
    pair: EncoderPair,
    out: Path,
    *,
    precision: str,
    photos: Sequence[Path],
    calibration: Sequence[Path] = (),
    batch: int | None = None,
    classes: Mapping[str, Classes] | None = None,
    text_encoder: bool = True,
    gate: float | None = None,
) -> Bundle:
    """Export both encoders, verify them against their source, and write the bundle.

    Args:
        pair: The model.
        out: The bundle's folder. An older bundle there is replaced at the end.
        precision: A key of `GATES`.
        photos: Real photos to verify on.
        calibration: Real photos to calibrate ``"int8"`` on; they are not used to verify.
        batch: Fixed batch size; None for any batch size.
        classes: Vocabularies to embed: name → classes.
        text_encoder: Whether the bundle keeps its text encoder. Without it only `classes` can be selected.
        gate: Minimum label agreement with the source, 0–1; None for the precision's value in `GATES`.

    Raises:
        VerificationError: The exported files do not compute the same as the source.
        PixelClipError: An argument is invalid.
        OSError: The folder cannot be written.
    """
    photos = photos_to_verify_on(precision, photos, calibration)
    pair = dataclasses.replace(pair, input=dataclasses.replace(pair.input, batch=batch))
    gate = GATES[precision] if gate is None else gate
    with staged_folder(out) as folder:
        graph = trace_image_encoder(pair, for_cpu=precision in ("fp32", "int8-weights"))
        _log(f"image encoder traced, {len(graph.graph.node)} nodes; converting to {precision}")
        # fp16 also looks at photos, to find tensors beyond its range. It fits nothing to them, so the photos
        # to verify on may serve.
        layers: list[LayerReport] = []
        image_encoder = _in_precision(graph, precision, pair, calibration or photos, gate, layers.append)
        for report in layers:
            _log(report.text())
        onnx.save(image_encoder, folder / IMAGE_ENCODER)
        onnx.save(_text_in_precision(_trace_text_encoder(pair), precision), folder / TEXT_ENCODER)
        pair.tokenizer.save(str(folder / TOKENIZER), pretty=False)
        bundle = Bundle(
            path=folder,
            name=pair.name,
            license=pair.license,
            sources=pair.sources,
            input=pair.input,
            grid=pair.grid,
            embedding_dim=pair.dim,
            templates=pair.templates,
            precision=precision,
            verification={},
            files={name: file_entry(folder / name) for name in (IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER)},
        )
        verification = verify(bundle, pair, photos, gate).to_json()
        if layers:
            verification["layers"] = layers[0].to_json()
        files = dict(bundle.files)
        if classes:
            files |= write_vocabularies(folder, TextEncoder(bundle), classes)
        if not text_encoder:
            for name in (TEXT_ENCODER, TOKENIZER):
                (folder / name).unlink()
                del files[name]
        bundle = dataclasses.replace(bundle, verification=verification, files=files)
        (folder / MANIFEST).write_text(bundle.to_json(), encoding="utf-8")
    return Bundle.open(out)


def trace_image_encoder(pair: EncoderPair, *, for_cpu: bool = False) -> onnx.ModelProto:
    """Export the image encoder as an fp32 graph for the input sizes and the batch size of `pair.input`.

    Args:
        pair: The model.
        for_cpu: See `LeanImageEncoder`.
    """
    spec = pair.input
    dynamic: dict[int, Any] = {} if spec.batch else {0: Dim("batch")}
    module, size = pair.image, (2 * spec.multiple, 3 * spec.multiple)
    if isinstance(module, DenseImageEncoder):
        size = spec.height, spec.width
        module = LeanImageEncoder(module, size, for_cpu=for_cpu).eval()
    else:
        if isinstance(module, LiteImageEncoder):
            module = LeanLiteEncoder(module).eval()
        rows, columns = Dim("rows", min=1, max=128), Dim("columns", min=1, max=128)
        dynamic |= {1: spec.multiple * rows, 2: spec.multiple * columns}
    return trace(
        module,
        [torch.zeros(spec.batch or 2, *size, 3, dtype=torch.uint8), torch.zeros(5, pair.dim)],
        inputs=["image", "text"],
        outputs=["logits", "features"],
        dynamic={"image": dynamic, "text": {0: Dim("classes")}},
    )


def _trace_text_encoder(pair: EncoderPair) -> onnx.ModelProto:
    sizes = {0: Dim("batch"), 1: Dim("tokens", max=pair.max_tokens)}
    return trace(
        pair.text,
        # A separate tensor for each input: the exporter merges inputs that are the same object.
        [torch.ones(2, 7, dtype=torch.int64) for _ in pair.text_inputs],
        inputs=pair.text_inputs,
        outputs=["embedding"],
        dynamic=dict.fromkeys(pair.text_inputs, sizes),
    )


def _in_precision(
    graph: onnx.ModelProto,
    precision: str,
    pair: EncoderPair,
    photos: Sequence[Path],
    gate: float,
    report: Callable[[LayerReport], None],
) -> onnx.ModelProto:
    """Convert the image encoder's fp32 graph to a precision."""
    if precision == "int8-weights":
        # Smaller tensors gain little in int8 and lose accuracy.
        return store_fp16(store_int8(graph, min_elements=200_000))
    if precision == "fp32":
        return graph
    batches = photo_batches(pair, photos)
    try:
        if precision == "fp16":
            return to_fp16(graph, batches, report=report)
        return to_int8(graph, batches, gate=min(gate + _INT8_MARGIN, 1.0), report=report)
    except ValueError as error:  # The precision cannot represent a weight, or no layer meets the gate.
        raise VerificationError(f"{pair.name} cannot be exported in {precision}: {error}") from error


def photo_batches(pair: EncoderPair, photos: Sequence[Path]) -> Iterator[Batch]:
    """Inputs of the image encoder: each photo at the model's input size, with the embeddings of `WORDS`."""
    text = Vocabulary.encode(WORDS, TorchTextEncoder(pair)).embeddings
    for photo in photos:
        image = fit(load_image(photo), pair.input)
        yield {"image": np.stack([image] * (pair.input.batch or 1)), "text": text}


def _text_in_precision(graph: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Store the text encoder's weights in the precision; it always computes in fp32."""
    if precision.startswith("int8"):
        # Whitening divides by small numbers, which amplifies rounding: int8 there would cost more than in all
        # of MiniLM's layers together (mean cosine of 500 names 0.9958 instead of 0.9970).
        names = {weight.name for weight in graph.graph.initializer}
        graph = store_int8(graph, keep=names & {"whiten"})
    return graph if precision == "fp32" else store_fp16(graph)


def _named_after(pair: EncoderPair, model: str, checkpoint: Path | None) -> EncoderPair:
    """Add the checkpoint to the model's name, and warn: its weights are not those that the name stands for.

    A model's own file, downloaded by hand, and a model described by a ``.json`` file keep their names.
    """
    if checkpoint is None or model.endswith(".json"):
        return pair
    own = [] if model in LITES else registry.find(model).files
    if checkpoint.name in (Path(file).name for file in own):
        return pair
    name = f"{pair.name}+{checkpoint.stem}"
    _log(f"warning: the weights are those of {checkpoint}, not of {model}; the bundle is named {name!r}")
    return dataclasses.replace(pair, name=name)


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `run_command`."""
    parser = argparse.ArgumentParser(
        prog="to_onnx.py",
        description="Export a model as a bundle for the SDK: ONNX files, verified against their source.",
    )
    add = parser.add_argument
    add("--model", required=True, help=f"{', '.join(registry.names())}, or open_clip:NAME/TAG")
    add("--checkpoint", type=path, metavar="FILE", help="use these weights instead of downloading them")
    add("--out", required=True, type=path, metavar="BUNDLE", help="the bundle's folder")
    add(
        "--input-size",
        "--imgsz",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="input size (default: the model's); if not square, images keep their aspect ratio",
    )
    add("--batch", type=int, help="fixed batch size (default: any)")
    add(
        "--precision",
        choices=list(GATES),
        help=f"(default: int8-weights for {', '.join(LITES)}, fp32 for the others)",
    )
    add("--calibration", type=path, metavar="DIR", help="some dozen real photos to calibrate int8 on")
    add(
        "--classes",
        action="append",
        default=[],
        metavar='NAME|FILE|"a, b"',
        help="classes to embed into the bundle; may be given several times",
    )
    add(
        "--name",
        help="name of the vocabulary of --classes in the bundle (default: the name of the list or file, "
        f"{DEFAULT_NAME!r} for classes typed here)",
    )
    add(
        "--no-text-encoder",
        dest="text_encoder",
        action="store_false",
        help="leave the text encoder out: the bundle is smaller and has only the classes of --classes",
    )
    add("--photos", type=path, metavar="DIR", help="real photos to verify on (default: built in)")
    gates = ", ".join(f"{gate} for {precision}" for precision, gate in GATES.items())
    add("--gate", type=float, help=f"minimum share of pixels with the source's label (default: {gates})")
    add("--offline", action="store_true", help="use cached weights, never download")
    options = parser.parse_args(arguments)
    if not options.text_encoder and not options.classes:
        parser.error("--no-text-encoder: such a bundle needs classes; give --classes")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    return run_command("to_onnx", lambda: _run(options), interrupted="an older bundle is unchanged")


def _run(options: argparse.Namespace) -> int:
    # Check every option before weights are downloaded.
    classes = vocabularies(options.classes, options.name)
    precision = options.precision or ("int8-weights" if options.model in LITES else "fp32")
    calibration = photos_in("--calibration", options.calibration)
    photos = photos_in("--photos", options.photos) or default_photos()
    photos = photos_to_verify_on(precision, photos, calibration)
    if options.batch is not None and options.batch < 1:
        raise PixelClipError(f"--batch is {options.batch}; expected at least 1, or no --batch for any size")
    check_gate(options.gate)
    check_target(options.out)
    check_weights(options.model)
    pair = load_model(
        options.model,
        checkpoint=options.checkpoint,
        input_size=tuple(options.input_size) if options.input_size else None,
        offline=options.offline,
    )
    bundle = export_bundle(
        _named_after(pair, options.model, options.checkpoint),
        options.out,
        precision=precision,
        photos=photos,
        calibration=calibration,
        batch=options.batch,
        classes=classes,
        text_encoder=options.text_encoder,
        gate=options.gate,
    )
    print(f"{bundle.name} ({bundle.precision}) → {options.out} ({bundle.size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
