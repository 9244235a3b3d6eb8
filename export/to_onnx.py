"""Write a model as a bundle: ``python export/to_onnx.py --model pixelclip-vit-b16 --out DIR``.

The bundle is built beside its place, run against its PyTorch source on real photos, and only then moved
there. If anything fails, an older bundle at that place stays as it was.
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

from export.embed_text import write_vocabularies
from export.graph.lean import LeanImageEncoder
from export.graph.lean_lite import LeanLiteEncoder
from export.graph.trace import trace
from export.options import DEFAULT_NAME, check_weights, photos_to_verify_on, vocabularies
from export.photos import default_photos, pictures
from export.precision.calibration import Batch
from export.precision.fp16 import to_fp16
from export.precision.int8 import to_int8
from export.precision.layers import Layers
from export.precision.storage import store_fp16, store_int8
from export.staging import check_target, staged_folder
from export.verify import GATES, WORDS, VerificationError, check_gate, verify
from pixelclip_sdk import Bundle, PixelClipError, Vocabulary
from pixelclip_sdk.bundle import IMAGE_ENCODER, MANIFEST, TEXT_ENCODER, TOKENIZER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.preprocess import fit
from pixelclip_sdk.support.files import sha256
from pixelclip_sdk.support.signals import sigterm_interrupts
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

# What int8 has to keep beyond its gate on the photos that it is calibrated on: others may do a little worse.
_INT8_MARGIN = 0.005
_log = logging.getLogger(__name__)


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
    """Export both encoders, verify them against their source, and put the bundle in its place.

    Args:
        pair: The model.
        out: The bundle's folder; an older bundle there is replaced in the end.
        precision: One of `GATES`.
        photos: Real photos to verify on.
        calibration: Real photos to calibrate ``"int8"`` on; those among `photos` are not verified on.
        batch: The only number of pictures at once; None for any.
        classes: Vocabularies to embed: name → words.
        text_encoder: Whether it stays in the bundle; without it these vocabularies are all that it knows.
        gate: Least label agreement with the source, 0–1; None for the precision's own.

    Raises:
        VerificationError: The written files do not compute what the source does.
        PixelClipError: The input cannot be used.
        OSError: The folder cannot be written.
    """
    photos = photos_to_verify_on(precision, photos, calibration)
    pair = dataclasses.replace(pair, input=dataclasses.replace(pair.input, batch=batch))
    with staged_folder(out) as folder:
        graph = trace_image_encoder(pair, for_cpu=precision in ("fp32", "int8-weights"))
        _say(f"image encoder traced, {len(graph.graph.node)} nodes; now {precision}")
        # fp16 needs to see photos too, to find tensors beyond its range; it learns nothing from them.
        gate = GATES[precision] if gate is None else gate
        layers: list[Layers] = []
        image_encoder = _in_precision(graph, precision, pair, calibration or photos, gate, layers.append)
        for told in layers:
            _say(told.text())
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
            files={name: _entry(folder / name) for name in (IMAGE_ENCODER, TEXT_ENCODER, TOKENIZER)},
        )
        report = verify(bundle, pair, photos, gate)
        embedded = write_vocabularies(folder, TextEncoder(bundle), classes) if classes else {}
        verification = report.to_json() | ({"layers": layers[0].to_json()} if layers else {})
        files = {**bundle.files, **embedded}
        if not text_encoder:
            for name in (TEXT_ENCODER, TOKENIZER):
                (folder / name).unlink()
                del files[name]
        bundle = dataclasses.replace(bundle, verification=verification, files=files)
        (folder / MANIFEST).write_text(bundle.to_json(), encoding="utf-8")
    return Bundle.open(out)


def trace_image_encoder(pair: EncoderPair, *, for_cpu: bool = False) -> onnx.ModelProto:
    """The image encoder's graph in fp32, for the sizes and the batch of `pair.input`.

    Args:
        pair: The model.
        for_cpu: See `LeanImageEncoder`.
    """
    spec = pair.input
    free: dict[int, Any] = {} if spec.batch else {0: Dim("batch")}
    module, size = pair.image, (2 * spec.multiple, 3 * spec.multiple)
    if isinstance(module, DenseImageEncoder):
        size = spec.height, spec.width
        module = LeanImageEncoder(module, size, for_cpu=for_cpu).eval()
    else:
        if isinstance(module, LiteImageEncoder):
            module = LeanLiteEncoder(module).eval()
        rows, columns = Dim("rows", min=1, max=128), Dim("columns", min=1, max=128)
        free |= {1: spec.multiple * rows, 2: spec.multiple * columns}
    return trace(
        module,
        [torch.zeros(spec.batch or 2, *size, 3, dtype=torch.uint8), torch.zeros(5, pair.dim)],
        inputs=["image", "text"],
        outputs=["logits", "features"],
        dynamic={"image": free, "text": {0: Dim("classes")}},
    )


def _trace_text_encoder(pair: EncoderPair) -> onnx.ModelProto:
    sizes = {0: Dim("batch"), 1: Dim("tokens", max=pair.max_tokens)}
    return trace(
        pair.text,
        # One tensor each: the exporter takes equal objects for one input.
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
    tell: Callable[[Layers], None],
) -> onnx.ModelProto:
    """The image encoder's graph in the precision that was asked for."""
    if precision in ("fp16", "int8"):
        batches = photo_batches(pair, photos)
        try:
            if precision == "fp16":
                return to_fp16(graph, batches, tell=tell)
            return to_int8(graph, batches, gate=min(gate + _INT8_MARGIN, 1.0), tell=tell)
        except ValueError as error:  # A weight or a layer that the precision cannot hold.
            raise VerificationError(f"{pair.name} cannot be exported in {precision}: {error}") from error
    if precision == "int8-weights":
        # Smaller tensors gain little in int8 and cost precision.
        return store_fp16(store_int8(graph, min_elements=200_000))
    return graph


def photo_batches(pair: EncoderPair, photos: Sequence[Path]) -> Iterator[Batch]:
    """Photos as the image encoder takes them, with some everyday words."""
    text = Vocabulary.encode(WORDS, TorchTextEncoder(pair)).embeddings
    for photo in photos:
        image = fit(load_image(photo), pair.input)
        yield {"image": np.stack([image] * (pair.input.batch or 1)), "text": text}


def _text_in_precision(graph: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The text encoder's graph: small where the image encoder is, always computed in fp32."""
    if precision.startswith("int8"):
        # Whitening divides by small numbers and so multiplies rounding: int8 there would cost more than all
        # of MiniLM's layers together (mean cosine of 500 names 0.9958, against 0.9970; measured by hand).
        names = {weight.name for weight in graph.graph.initializer}
        graph = store_int8(graph, keep=names & {"whiten"})
    return graph if precision == "fp32" else store_fp16(graph)


def _entry(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256(path)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@sigterm_interrupts()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="to_onnx.py",
        description="Export a model as a bundle that the SDK runs: ONNX files, checked against their source.",
    )
    parser.add_argument(
        "--model", required=True, help=f"{', '.join(registry.names())}, or open_clip:NAME/TAG"
    )
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="weights to take instead of the download"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument(
        "--imgsz",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="input size (default: the model's own); unless it is square, pictures keep their aspect ratio",
    )
    parser.add_argument("--batch", type=int, help="the only number of pictures at once (default: any)")
    parser.add_argument(
        "--precision",
        choices=list(GATES),
        help=f"default: int8-weights for {', '.join(LITES)}, fp32 for others",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="DIR", help="real photos for int8; some dozens are enough"
    )
    parser.add_argument(
        "--classes",
        action="append",
        default=[],
        metavar='NAME|FILE|"a, b"',
        help="words to embed into the bundle; may be given several times",
    )
    parser.add_argument(
        "--name",
        help="what to call the words of --classes in the bundle (default: the list's or the file's name, "
        f"{DEFAULT_NAME!r} for words given here)",
    )
    parser.add_argument(
        "--no-text-encoder",
        dest="text_encoder",
        action="store_false",
        help="leave it out: the bundle is smaller, and knows the words of --classes alone",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="real photos to verify on (default: ours, scikit-image's and scikit-learn's)",
    )
    parser.add_argument(
        "--gate",
        type=float,
        help="least share of pixels that keep their label (default: "
        + ", ".join(f"{gate} for {precision}" for precision, gate in GATES.items())
        + ")",
    )
    parser.add_argument("--offline", action="store_true", help="take weights from the cache, never download")
    options = parser.parse_args(arguments)
    if not options.text_encoder and not options.classes:
        parser.error("--no-text-encoder: without it the bundle needs words to know; give --classes")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    try:
        # All that can be wrong with the options, before weights are downloaded.
        classes = vocabularies(options.classes, options.name)
        precision = options.precision or ("int8-weights" if options.model in LITES else "fp32")
        calibration = pictures("--calibration", options.calibration)
        photos = pictures("--photos", options.photos) or default_photos()
        photos = photos_to_verify_on(precision, photos, calibration)
        if options.batch is not None and options.batch < 1:
            raise PixelClipError(
                f"--batch is {options.batch}; expected at least 1, or nothing for any number"
            )
        check_gate(options.gate)
        check_target(options.out)
        check_weights(options.model)
        pair = load_model(
            options.model,
            checkpoint=options.checkpoint,
            input_size=tuple(options.imgsz) if options.imgsz else None,
            offline=options.offline,
        )
        bundle = export_bundle(
            pair,
            options.out,
            precision=precision,
            photos=photos,
            calibration=calibration,
            batch=options.batch,
            classes=classes,
            text_encoder=options.text_encoder,
            gate=options.gate,
        )
    except (PixelClipError, OSError) as error:
        _say(f"to_onnx: {error}")
        return 1
    except KeyboardInterrupt:
        _say("to_onnx: interrupted; an older bundle is as it was")
        return 130
    except Exception as error:  # Of torch, onnx and ONNX Runtime, which have no common parent.
        if type(error).__module__.startswith("builtins") and not isinstance(
            error, (RuntimeError, ValueError)
        ):
            raise  # A mistake of ours.
        _log.debug("the whole error", exc_info=error)
        said = " ".join(str(error).split())[:400]
        _say(f"to_onnx: {options.model} cannot be exported: {type(error).__name__}: {said}")
        return 1
    print(f"{bundle.name} ({bundle.precision}) → {options.out} ({bundle.size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
