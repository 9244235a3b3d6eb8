"""Compare a bundle with its PyTorch source on real photos, as every export does.

``python export/verify.py --bundle BUNDLE --model NAME`` checks an existing bundle.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.options import check_gate, default_photos, photos_in
from export.precision.fp16 import rounding
from pixelclip_sdk import Bundle, PixelClipError, Vocabulary
from pixelclip_sdk.agreement import GATES, WORDS
from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.preprocess import covered, fit
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.runtime import TorchTextEncoder

__all__ = ["VerificationError", "main", "verify"]


class VerificationError(PixelClipError):
    """The exported bundle does not compute the same as its source."""


@torch.no_grad()
def verify(bundle: Bundle, pair: EncoderPair, photos: Sequence[Path], gate: float) -> dict[str, Any]:
    """Compare a bundle with its source on photos and everyday words; print and return the report.

    Raises:
        VerificationError: The values are not finite, or a smaller share than `gate` of the labels agrees.
    """
    text = Vocabulary.encode(WORDS, TextEncoder(bundle)).embeddings
    source_text = Vocabulary.encode(WORDS, TorchTextEncoder(pair)).embeddings
    agreement, max_difference, mean_difference, cosine = [], 0.0, [], []
    with _open_image_encoder(bundle) as backend:
        for photo in photos:
            original = load_image(photo)
            image = fit(original, bundle.input)[None]
            tensors = torch.from_numpy(image.copy()), torch.from_numpy(source_text.copy())
            source_logits, source_features = (tensor.numpy() for tensor in pair.image(*tensors))
            logits, features = backend.logits(image, text), backend.features(image)
            if not (np.isfinite(logits).all() and np.isfinite(features).all()):
                raise VerificationError(
                    f"the exported model gives values that are not finite on {photo.name}. "
                    f"Export with higher precision than {bundle.precision}."
                )
            lengths = np.linalg.norm(features, axis=-1) * np.linalg.norm(source_features, axis=-1)
            cosine.append(((features * source_features).sum(-1) / lengths).mean())
            difference = np.abs(logits - source_logits)
            max_difference = max(max_difference, float(difference.max()))
            mean_difference.append(difference.mean())
            size = original.shape[0], original.shape[1]
            part = covered(size, bundle.input)
            maps = [labels_upsampled(grid[0], size, covered=part) for grid in (logits, source_logits)]
            agreement.append((maps[0] == maps[1]).mean())
    share = float(np.mean(agreement))
    report: dict[str, Any] = {
        "photos": len(photos),
        "words": len(text),
        "label_agreement": share,  # Each side uses its own text embeddings.
        "logits_max_difference": max_difference,
        "logits_mean_difference": float(np.mean(mean_difference)),
        "features_cosine": float(np.mean(cosine)),
        "text_cosine": float((text * source_text).sum(axis=1).min()),
        "gate": gate,
    }
    print(f"verified {bundle.name} ({bundle.precision}) against its source:", file=sys.stderr)
    for key, value in report.items():
        # Rounded, so that equal exports give equal bytes.
        report[key] = float(f"{value:.4g}") if isinstance(value, float) else value
        print(f"  {key:<24}{report[key]}", file=sys.stderr)
    if not share >= gate:
        raise VerificationError(
            f"the exported model agrees with its source on {share:.2%} of the pixels; {bundle.precision} "
            f"requires {gate:.2%}. Export with higher precision, or lower --gate."
        )
    return report


@contextlib.contextmanager
def _open_image_encoder(bundle: Bundle) -> Iterator[Backend]:
    """The image encoder on the CPU; fp16 is emulated, since the CPU itself computes in fp32."""
    if bundle.precision != "fp16":
        with open_backend(bundle, "onnx", "cpu") as backend:
            yield backend
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / IMAGE_ENCODER
        onnx.save(rounding(onnx.load(bundle.file(IMAGE_ENCODER))), file)
        spec = bundle.input
        limits = {"multiple": spec.multiple, "fixed_size": spec.only_size, "batch": spec.batch}
        with OnnxBackend(file, embedding_dim=bundle.embedding_dim, **limits) as backend:
            yield backend


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; see `run_command`."""
    parser = argparse.ArgumentParser(prog="verify.py", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--bundle", required=True, help="the bundle's folder, or a model's name")
    add("--model", required=True, help="the exported model, as for to_onnx.py")
    add("--checkpoint", type=path, metavar="FILE", help="the exported weights, if from a file")
    add("--photos", type=path, metavar="DIR", help="real photos, not the calibration's (default: built in)")
    add("--gate", type=float, help="minimum share of pixels with the same label")
    add("--offline", action="store_true", help="use cached weights, never download")
    options = parser.parse_args(arguments)
    return run_command("verify", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    check_gate(options.gate)
    photos = photos_in("--photos", options.photos) or default_photos()
    bundle = find_bundle(options.bundle)
    bundle.verify()
    size = bundle.input.height, bundle.input.width
    pair = load_model(options.model, checkpoint=options.checkpoint, input_size=size, offline=options.offline)
    known = {entry.get("sha256") for entry in pair.sources}
    missing = [entry for entry in bundle.sources if entry.get("sha256") not in known]
    if missing or (pair.dim, pair.grid) != (bundle.embedding_dim, bundle.grid):
        files = ", ".join(str(entry.get("file", entry.get("name"))) for entry in missing) or "other weights"
        raise VerificationError(
            f"{bundle.name} was exported from {files}, which {options.model} does not use; "
            "name the model that it was exported from, and its file with --checkpoint"
        )
    gate = GATES.get(bundle.precision, GATES["fp32"]) if options.gate is None else options.gate
    verify(bundle, pair, photos, gate)
    return 0


if __name__ == "__main__":
    sys.exit(main())
