"""Does the written bundle compute what its source does? Runs both on real photos."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelclip_sdk import Bundle, PixelClipError, Vocabulary
from pixelclip_sdk.backends.onnx import OnnxBackend
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.postprocess import argmax_upsampled
from pixelclip_sdk.preprocess import fit, load_image
from pixelclip_sdk.text import TextEncoder

__all__ = ["Report", "VerificationError", "verify"]

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


class _SourceEncoder:
    """The PyTorch text encoder, with the tokenizer and templates of the bundle."""

    def __init__(self, bundled: TextEncoder, module: torch.nn.Module) -> None:
        self.templates, self.text_hash = bundled.templates, bundled.text_hash
        self.check_words, self._tokenizer, self._module = bundled.check_words, bundled.tokenizer, module

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        encodings = self._tokenizer.encode_batch(texts)
        ids, mask = [e.ids for e in encodings], [e.attention_mask for e in encodings]
        return self._module(torch.tensor(ids), torch.tensor(mask)).numpy()


@torch.no_grad()
def verify(
    bundle: Bundle,
    image_encoder: torch.nn.Module,
    text_encoder: torch.nn.Module,
    photos: Sequence[Path],
    gate: float,
) -> Report:
    """Run a written bundle and its PyTorch source on the same photos and words.

    Args:
        bundle: The bundle, as written.
        image_encoder: The source: uint8 `[N, H, W, 3]` and text `[K, D]` → logits and features.
        text_encoder: The source: token ids and mask → embeddings.
        photos: Real photos, at least one.
        gate: Least label agreement, 0–1.

    Raises:
        VerificationError: The labels agree on too few pixels.
    """
    encoder = TextEncoder(bundle)
    ours = Vocabulary.encode(WORDS, encoder).embeddings
    source = Vocabulary.encode(WORDS, _SourceEncoder(encoder, text_encoder)).embeddings
    agreement, worst, mean, cosine = [], 0.0, [], []
    with OnnxBackend(
        bundle.file(IMAGE_ENCODER), embedding_dim=bundle.embedding_dim, multiple=bundle.input.multiple
    ) as backend:
        for photo in photos:
            picture = load_image(photo)
            image = fit(picture, bundle.input)[None]
            tensors = torch.from_numpy(image.copy()), torch.from_numpy(source.copy())
            expected, features = (tensor.numpy() for tensor in image_encoder(*tensors))
            found = backend.logits(image, ours)
            a, b = backend.features(image), features
            cosine.append((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1))
            difference = np.abs(found - expected)
            worst = max(worst, float(difference.max()))
            mean.append(difference.mean())
            size = picture.shape[0], picture.shape[1]
            labels = [argmax_upsampled(logits[0], size)[0] for logits in (found, expected)]
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
