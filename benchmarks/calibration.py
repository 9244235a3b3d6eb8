"""Is the confidence right? ``python benchmarks/calibration.py --sets FILE --root DIR``.

Fits the two constants of `pixelclip_sdk.confidence.Calibration` on every second photo of labelled data sets,
and reports the expected calibration error (ECE) on the others: the mean difference between confidence and
accuracy over 15 bins of equal width, weighted by their pixels (Guo et al. 2017, "On Calibration of Modern
Neural Networks", section 2). "Before" is the softmax over the classes with CLIP's temperature.

Each photo is tried with all words of its data set, and with a random half of them: then many pixels show none
of the words, and should have a low confidence. Where a data set labels a background of other things, the
photo is tried with these pixels as well. ``--write`` stores words and constants in the bundle.
"""

import dataclasses
import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.results import ROOT, command_parser, store
from export.embed_text import add_vocabularies
from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.bundle import BACKGROUND as BACKGROUND_NAME
from pixelclip_sdk.confidence import Calibration, Rivals, confidence_map, posteriors
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import labels_upsampled
from pixelclip_sdk.support.arguments import path
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.background import Competitors
from pixelclip_sdk.words.classes import parse_classes, read_class_file
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.evaluation.datasets import Dataset
from training.evaluation.metrics import BACKGROUND, IGNORE_INDEX
from training.evaluation.sets import load_sets

_WORDS = ROOT / "export" / "background.txt"
_SETS = ROOT / "training" / "evaluation" / "development.yaml"
_PIXELS = 3  # Per side of a cell: truth and confidence are compared at this size.
_BINS = 15
_TEMPERATURES = np.geomspace(0.02, 0.4, 14)
_WEIGHTS = np.geomspace(0.02, 4, 10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """One photo with some words: logits on the grid, and at each pixel the winner and whether it is right."""

    group: str  # Data set and words, e.g. "voc, half of the words".
    logits: np.ndarray  # (K, h, w)
    background: np.ndarray  # (B, h, w)
    labels: np.ndarray  # (H, W)
    right: np.ndarray  # (H, W) bool
    scored: np.ndarray  # (H, W) bool

    def confidence(self, calibration: Calibration) -> np.ndarray:
        """Returns the confidence of the scored pixels."""
        probabilities = posteriors(self.logits, Rivals(self.background[:0], self.background, calibration))
        return confidence_map(self.labels, probabilities)[self.scored]

    def plain(self) -> np.ndarray:
        """Returns the softmax over the classes with CLIP's temperature, of the scored pixels."""
        odds = np.exp((self.logits - self.logits.max(axis=0)) / Calibration().temperature)
        return confidence_map(self.labels, (odds / odds.sum(axis=0)).astype(np.float32))[self.scored]


def samples_of(
    segmenter: Segmenter, data: Dataset, words: Vocabulary, competitors: Competitors
) -> list[list[Sample]]:
    """Returns the samples of each photo. `words` are the embedded classes of the data set."""
    result = []
    for index, photo in enumerate(tqdm(data.photos, desc=data.name, unit="photo", disable=None)):
        truth, samples = data.truth(index), []
        features = segmenter.features(photo)
        features /= np.linalg.norm(features, axis=2, keepdims=True)
        everything = list(range(len(words)))
        half = sorted(random.Random(index).sample(everything, max(len(words) // 2, 2)))
        tasks = [("all words", everything, BACKGROUND), ("half of the words", half, BACKGROUND)]
        if (truth == BACKGROUND).any():
            tasks.append(("and the background", everything, IGNORE_INDEX))
        for name, kept, end in tasks:
            rows = competitors.of(_subset(words, kept)).embeddings
            grid = np.einsum("hwd,kd->khw", features, rows, optimize=True)
            size = grid.shape[1] * _PIXELS, grid.shape[2] * _PIXELS
            labels = labels_upsampled(grid[: len(kept)], size)
            at = np.ix_(*(_centres(n, side) for n, side in zip(size, truth.shape, strict=True)))
            samples.append(
                Sample(
                    group=f"{data.name}, {name}",
                    logits=grid[: len(kept)],
                    background=grid[len(kept) :],
                    labels=labels,
                    right=np.array(kept)[labels] == truth[at],
                    scored=truth[at] < end,
                )
            )
        result.append(samples)
    return result


def _centres(points: int, pixels: int) -> np.ndarray:
    """Returns the pixels in the middle of equal parts of a side."""
    return (np.arange(points) * 2 + 1) * pixels // (2 * points)


def _subset(words: Vocabulary, kept: Sequence[int]) -> Vocabulary:
    names = [words.names[i] for i in kept]
    synonyms = {name: words.synonyms[name] for name in names}
    return Vocabulary(names=tuple(names), embeddings=words.embeddings[list(kept)], synonyms=synonyms)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Returns the expected calibration error of pixels, 0–1."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, confidence, _BINS) - np.bincount(bins, right, _BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def fitted(samples: Sequence[Sample]) -> Calibration:
    """Returns the constants with the smallest log loss of "the label is right", mean of the groups."""

    def loss(calibration: Calibration) -> float:
        losses: dict[str, list[float]] = {}
        for sample in samples:
            p = np.clip(sample.confidence(calibration), 1e-3, 1 - 1e-3)
            right = sample.right[sample.scored]
            if len(p):
                losses.setdefault(sample.group, []).append(float(-np.log(np.where(right, p, 1 - p)).mean()))
        return float(np.mean([np.mean(values) for values in losses.values()]))

    best = Calibration(0.1, 0.3)
    for _ in range(2):  # One constant after the other, twice.
        for field, values in (("temperature", _TEMPERATURES), ("background_weight", _WEIGHTS)):
            tried = [best._replace(**{field: float(f"{value:.3g}")}) for value in values]
            best = min(tried, key=loss)
    return best


def report(samples: Sequence[Sample], calibration: Calibration) -> dict[str, dict[str, float]]:
    """Returns accuracy, mean confidence and calibration errors by group, and their means."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    rows = {}
    for name, members in groups.items():
        right = np.concatenate([s.right[s.scored] for s in members])
        after = np.concatenate([s.confidence(calibration) for s in members])
        before = np.concatenate([s.plain() for s in members])
        rows[name] = {
            "accuracy": float(right.mean()),
            "confidence": float(after.mean()),
            "ece_before": calibration_error(before, right),
            "ece": calibration_error(after, right),
        }
    rows["mean"] = {key: float(np.mean([row[key] for row in rows.values()])) for key in ("ece_before", "ece")}
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__)
    parser.add_argument("--bundle", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--sets", type=path, default=_SETS, metavar="FILE", help="data sets; see evaluate.py")
    parser.add_argument("--root", type=path, required=True, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--words", type=path, default=_WORDS, metavar="FILE", help="the background words")
    parser.add_argument("--write", action="store_true", help="store words and constants in the bundle")
    options = parser.parse_args(arguments)
    bundle, words = find_bundle(options.bundle), parse_classes(read_class_file(options.words))
    encoder = TextEncoder(bundle)
    competitors = Competitors(Vocabulary.encode(words, encoder), damping=bundle.damping())
    photos: list[list[Sample]] = []
    with Segmenter.from_pretrained(bundle.path) as segmenter:
        for data in load_sets(options.sets, options.root).values():
            photos += samples_of(segmenter, data, Vocabulary.encode(data.classes, encoder), competitors)
    calibration = fitted([sample for samples in photos[::2] for sample in samples])
    rows = report([sample for samples in photos[1::2] for sample in samples], calibration)
    for name, row in rows.items():
        print(f"{name:<32}", ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    print(calibration)
    if options.write:
        bundle = add_vocabularies(bundle, {BACKGROUND_NAME: words}, calibration)
    content: dict[str, Any] = {"calibration": calibration._asdict(), "groups": rows}
    store(options.json, {"files": {n: e["sha256"] for n, e in bundle.files.items()}, **content})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("calibration", main))
