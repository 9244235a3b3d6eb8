"""Does the written bundle compute what its source does? Runs both on real photos.

Every export does this; for a bundle that is there already,
``python export/verify.py --bundle BUNDLE --model NAME``.
"""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.photos import default_photos, pictures
from export.precision.fp16 import rounding
from pixelclip_sdk import Bundle, PixelClipError, Vocabulary
from pixelclip_sdk.backends.base import Backend
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.preprocess import covered, fit
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.runtime import TorchTextEncoder

__all__ = ["GATES", "WORDS", "Report", "VerificationError", "check_gate", "main", "verify"]

# Precision → least share of pixels that keep their label. "int8-weights" computes in fp32.
GATES = {"fp32": 0.999, "fp16": 0.99, "int8": 0.97, "int8-weights": 0.98}

# Everyday words: near ones too, so that labels can flip if the numbers move.
WORDS = (
    "cat, dog, person, car, bus, bicycle, tree, grass, sky, road, building, wall, floor, table, chair, "
    "sofa, cup, plate, book, window"
)


class VerificationError(PixelClipError):
    """The exported bundle does not compute what its source does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """How far the bundle is from its source.

    Attributes:
        photos: Number of photos.
        words: Number of classes.
        label_agreement: Share of pixels with the same label, with each side's own text embeddings.
        logits_max_difference: Largest difference of a logit (a cosine).
        logits_mean_difference: Mean difference of a logit.
        features_cosine: Mean cosine between the features of both.
        text_cosine: Smallest cosine between the text embeddings of both.
        gate: The label agreement that was asked for.
    """

    photos: int
    words: int
    label_agreement: float
    logits_max_difference: float
    logits_mean_difference: float
    features_cosine: float
    text_cosine: float
    gate: float

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready values, rounded so that equal exports are equal bytes."""
        return {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in vars(self).items()
        }

    def table(self) -> str:
        """The report as text for people."""
        return "\n".join(f"  {key:<24}{value}" for key, value in self.to_json().items())


@torch.no_grad()
def verify(bundle: Bundle, pair: EncoderPair, photos: Sequence[Path], gate: float) -> Report:
    """Run a written bundle and its PyTorch source on the same photos and words.

    Args:
        bundle: The bundle, as written.
        pair: The source.
        photos: Real photos, at least one.
        gate: Least label agreement, 0–1.

    Raises:
        VerificationError: The labels agree on too few pixels, or the bundle's numbers are not finite.
    """
    ours = Vocabulary.encode(WORDS, TextEncoder(bundle)).embeddings
    source = Vocabulary.encode(WORDS, TorchTextEncoder(pair)).embeddings
    agreement, worst, mean, cosine = [], 0.0, [], []
    with _opened(bundle) as backend:
        for photo in photos:
            picture = load_image(photo)
            image = fit(picture, bundle.input)[None]
            tensors = torch.from_numpy(image.copy()), torch.from_numpy(source.copy())
            expected, features = (tensor.numpy() for tensor in pair.image(*tensors))
            found = backend.logits(image, ours)
            a, b = backend.features(image), features
            if not (np.isfinite(found).all() and np.isfinite(a).all()):
                raise VerificationError(
                    f"the exported model gives values that are not finite on {photo.name}. "
                    f"Export with higher precision than {bundle.precision}."
                )
            cosine.append((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
            difference = np.abs(found - expected)
            worst = max(worst, float(difference.max()))
            mean.append(difference.mean())
            size = picture.shape[0], picture.shape[1]
            share = covered(size, bundle.input)
            labels = [labels_upsampled(logits[0], size, covered=share) for logits in (found, expected)]
            agreement.append((labels[0] == labels[1]).mean())
    report = Report(
        photos=len(photos),
        words=len(ours),
        label_agreement=float(np.mean(agreement)),
        logits_max_difference=worst,
        logits_mean_difference=float(np.mean(mean)),
        features_cosine=float(np.mean([c.mean() for c in cosine])),
        text_cosine=float((ours * source).sum(axis=1).min()),
        gate=gate,
    )
    print(
        f"verified {bundle.name} ({bundle.precision}) against its source:\n{report.table()}", file=sys.stderr
    )
    if not report.label_agreement >= gate:
        raise VerificationError(
            f"the exported model agrees with its source on {report.label_agreement:.2%} of the pixels; "
            f"{gate:.2%} is asked of {bundle.precision}. Export with higher precision, or lower --gate."
        )
    return report


@contextlib.contextmanager
def _opened(bundle: Bundle) -> Iterator[Backend]:
    """The bundle's image encoder on the CPU, computing as the precision says."""
    if bundle.precision != "fp16":
        with open_backend(bundle, "onnx", "cpu") as backend:
            yield backend
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / IMAGE_ENCODER
        onnx.save(rounding(onnx.load(bundle.file(IMAGE_ENCODER))), file)
        spec = bundle.input
        with OnnxBackend(
            file,
            embedding_dim=bundle.embedding_dim,
            multiple=spec.multiple,
            fixed_size=spec.only_size,
            batch=spec.batch,
        ) as backend:
            yield backend


def check_gate(gate: float | None) -> None:
    """Check a label agreement that somebody asks for, or None for the usual one.

    Raises:
        PixelClipError: It is no share.
    """
    if gate is not None and not 0 <= gate <= 1:
        raise PixelClipError(f"--gate is {gate:g}; expected a share of the pixels, 0 to 1, as 0.99")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 they agree, 1 they do not or it failed, 130 interrupted."""
    parser = argparse.ArgumentParser(prog="verify.py", description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", required=True, help="the bundle's folder, or its name on this machine")
    parser.add_argument("--model", required=True, help="what it was exported from, as for to_onnx.py")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the weights, if they were a file")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="real photos, not those of the calibration (default: ours)"
    )
    parser.add_argument("--gate", type=float, help="least share of pixels with the same label")
    parser.add_argument("--offline", action="store_true", help="take weights from the cache, never download")
    options = parser.parse_args(arguments)
    try:
        check_gate(options.gate)
        photos = pictures("--photos", options.photos) or default_photos()
        bundle = find_bundle(options.bundle)
        bundle.verify()
        size = bundle.input.height, bundle.input.width
        pair = load_model(
            options.model, checkpoint=options.checkpoint, input_size=size, offline=options.offline
        )
        if (pair.dim, pair.grid) != (bundle.embedding_dim, bundle.grid):
            raise VerificationError(
                f"{bundle.name} gives {bundle.embedding_dim} numbers a cell on {bundle.grid} cells, "
                f"{options.model} {pair.dim} on {pair.grid}; name the model that it was exported from"
            )
        have = {entry.get("sha256") for entry in pair.sources}
        if other := [entry for entry in bundle.sources if entry.get("sha256") not in have]:
            files = ", ".join(str(entry.get("file", entry.get("name"))) for entry in other)
            raise VerificationError(
                f"{bundle.name} was made from {files}, which {options.model} alone is not; "
                "give the file with --checkpoint"
            )
        gate = GATES.get(bundle.precision, GATES["fp32"]) if options.gate is None else options.gate
        verify(bundle, pair, photos, gate)
    except KeyboardInterrupt:
        print("verify: interrupted", file=sys.stderr)
        return 130
    except (PixelClipError, OSError) as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
