"""Export a model as a bundle: ``python export/to_onnx.py --model pixelclip-vit-b16 --out DIR``.

The bundle is compared with its PyTorch source on real photos before it replaces an older one in `DIR`.
"""

import argparse
import dataclasses
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch.export import Dim

from export import options
from export.embed_text import file_entry, vocabularies, write_vocabularies
from export.graph.lean import LeanImageEncoder
from export.graph.lean_lite import LeanLiteEncoder, lean_student
from export.graph.trace import trace
from export.precision.fp16 import to_fp16
from export.precision.int8 import to_int8
from export.precision.layers import Batch, LayerReport
from export.precision.storage import store_fp16, store_int8
from export.staging import check_target, staged_folder
from export.verify import VerificationError, verify
from pixelclip_sdk import Bundle, PixelClipError, Vocabulary
from pixelclip_sdk.agreement import GATES, WORDS
from pixelclip_sdk.bundle import IMAGE_ENCODER, MANIFEST, TEXT_ENCODER, TOKENIZER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.preprocess import fit
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.classes import Classes
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models import registry
from training.models.bundled import BundledText
from training.models.dense import DenseImageEncoder
from training.models.lite.build import LiteImageEncoder
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.registry import LITES
from training.models.runtime import TorchTextEncoder
from training.models.student import LiteStudent

__all__ = ["GATES", "export_bundle", "main", "photo_batches", "trace_image_encoder"]

# Name of the vocabulary of classes that are typed on the command line.
_DEFAULT_NAME = "classes"
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
    """
    photos = options.photos_to_verify_on(precision, photos, calibration)
    pair = dataclasses.replace(pair, input=dataclasses.replace(pair.input, batch=batch))
    gate = GATES[precision] if gate is None else gate
    with staged_folder(out) as folder:
        graph = trace_image_encoder(pair, for_cpu=precision in ("fp32", "int8-weights"))
        _log(f"image encoder traced, {len(graph.graph.node)} nodes; converting to {precision}")
        # fp16 needs photos to find tensors beyond its range; nothing is fitted to those to verify on.
        image_encoder, layers = _in_precision(graph, precision, pair, calibration or photos, gate)
        if layers is not None:
            _log(layers.text())
        onnx.save(image_encoder, folder / IMAGE_ENCODER)
        if isinstance(pair.text, BundledText):
            shutil.copyfile(pair.text.file, folder / TEXT_ENCODER)
        else:
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
            refine=pair.refine,
            verification={},
            files={name: file_entry(folder / name) for name in (IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER)},
        )
        verification = verify(bundle, pair, photos, gate)
        if layers is not None:
            verification["layers"] = layers.to_json()
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
    """Export the image encoder as an fp32 graph for the sizes of `pair.input`; see `LeanImageEncoder`."""
    spec = pair.input
    dynamic: dict[int, Any] = {} if spec.batch else {0: Dim("batch")}
    module, size = pair.image, (2 * spec.multiple, 3 * spec.multiple)
    if isinstance(module, DenseImageEncoder):
        size = spec.height, spec.width
        module = LeanImageEncoder(module, size, for_cpu=for_cpu).eval()
    else:
        if isinstance(module, LiteImageEncoder):
            module = LeanLiteEncoder(module).eval()
        elif isinstance(module, LiteStudent):
            module = lean_student(module)
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
    graph: onnx.ModelProto, precision: str, pair: EncoderPair, photos: Sequence[Path], gate: float
) -> tuple[onnx.ModelProto, LayerReport | None]:
    """Convert the image encoder's fp32 graph to a precision."""
    if precision == "int8-weights":
        # Smaller tensors gain little in int8 and lose accuracy.
        return store_fp16(store_int8(graph, min_elements=200_000)), None
    if precision == "fp32":
        return graph, None
    batches = photo_batches(pair, photos)
    try:
        if precision == "fp16":
            return to_fp16(graph, batches)
        return to_int8(graph, batches, gate=min(gate + _INT8_MARGIN, 1.0))
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
        graph = store_int8(graph, keep=["whiten"])
    return graph if precision == "fp32" else store_fp16(graph)


def _named_after(pair: EncoderPair, model: str, checkpoint: Path | None) -> EncoderPair:
    """Add the checkpoint to the model's name, and warn, since the name stands for other weights."""
    if checkpoint is None or model.endswith(".json"):
        return pair
    own = [] if model in LITES else registry.find(model).files
    if checkpoint.name in (Path(file).name for file in own):  # The model's file, downloaded by hand.
        return pair
    name = f"{pair.name}+{checkpoint.stem}"
    _log(f"warning: the weights are those of {checkpoint}, not of {model}; the bundle is named {name!r}")
    return dataclasses.replace(pair, name=name)


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `run_command`."""
    parser = argparse.ArgumentParser(prog="to_onnx.py", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", required=True, help=f"{', '.join(registry.names())}, or open_clip:NAME/TAG")
    add("--checkpoint", type=path, metavar="FILE", help="use these weights instead of downloading them")
    add("--out", required=True, type=path, metavar="BUNDLE", help="the bundle's folder")
    text = "input size (default: the model's); if not square, images keep their aspect ratio"
    add("--input-size", "--imgsz", type=int, nargs=2, metavar=("H", "W"), help=text)
    add("--batch", type=int, help="fixed batch size (default: any)")
    text = f"(default: int8-weights for {', '.join(LITES)}, fp32 for the others)"
    add("--precision", choices=list(GATES), help=text)
    add("--calibration", type=path, metavar="DIR", help="some dozen real photos to calibrate int8 on")
    text = "classes to embed into the bundle; may be given several times"
    add("--classes", action="append", default=[], metavar='NAME|FILE|"a, b"', help=text)
    text = f"name of the vocabulary (default: the name of the list or file, or {_DEFAULT_NAME!r})"
    add("--name", help=text)
    text = "leave the text encoder out: the bundle is smaller and has only the classes of --classes"
    add("--no-text-encoder", dest="text_encoder", action="store_false", help=text)
    add("--photos", type=path, metavar="DIR", help="real photos to verify on (default: built in)")
    gates = ", ".join(f"{gate} for {precision}" for precision, gate in GATES.items())
    add("--gate", type=float, help=f"minimum share of pixels with the source's label (default: {gates})")
    add("--offline", action="store_true", help="use cached weights, never download")
    given = parser.parse_args(arguments)
    if not given.text_encoder and not given.classes:
        parser.error("--no-text-encoder: such a bundle needs classes; give --classes")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    return run_command("to_onnx", lambda: _run(given), interrupted="an older bundle is unchanged")


def _run(given: argparse.Namespace) -> int:
    # Check every option before weights are downloaded.
    classes = vocabularies(given.classes, given.name, default=_DEFAULT_NAME)
    precision = given.precision or ("int8-weights" if given.model in LITES else "fp32")
    calibration = options.photos_in("--calibration", given.calibration)
    photos = options.photos_in("--photos", given.photos) or options.default_photos()
    photos = options.photos_to_verify_on(precision, photos, calibration)
    if given.batch is not None and given.batch < 1:
        raise PixelClipError(f"--batch is {given.batch}; expected at least 1, or no --batch for any size")
    options.check_gate(given.gate)
    check_target(given.out)
    options.check_weights(given.model)
    size = tuple(given.input_size) if given.input_size else None
    pair = load_model(given.model, checkpoint=given.checkpoint, input_size=size, offline=given.offline)
    bundle = export_bundle(
        _named_after(pair, given.model, given.checkpoint),
        given.out,
        precision=precision,
        photos=photos,
        calibration=calibration,
        batch=given.batch,
        classes=classes,
        text_encoder=given.text_encoder,
        gate=given.gate,
    )
    print(f"{bundle.name} ({bundle.precision}) → {given.out} ({bundle.size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
