"""From a JPEG's bytes to labels, ours against others, in one run: ``python benchmarks/compare.py``.

Two cases: pixelclip-lite, 640×480, 20 classes; ViT-B/16 at 320², 1080p, 150 classes. The reference is the
plain PyTorch pipeline on the same model, input size and embeddings (`benchmarks/harness/rivals.py`). All take
turns, warm; numbers are medians. What is not installed is listed with the reason.

The ViT's weights are random: they show speed, not labels. Its 150 embeddings are those of 150 places of the
photo, so that the label map has regions and its labels can be compared.
"""

import argparse
import io
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness.models import PHOTOS, bundle_of, random_vit
from benchmarks.harness.rivals import ClipSeg, OpenVinoBackend, Outcome, TorchPipeline, missing
from benchmarks.harness.stored import store
from benchmarks.harness.turns import in_turns, medians
from pixelclip_sdk import Bundle, Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import SAMPLE_WORDS, environment
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import open_image_file
from training.models.load import load_model
from training.models.registry import LITE

REFERENCE = "PyTorch"
_CALIBRATION = 32
# All of lite's convolutions in integers: labels change where two words are close, accuracy does not
# (docs/pixelclip-lite.md).
LITE_INT8_GATE = 0.7
_OTHER_MODELS = ("CLIPSeg",)  # They have other labels.
# Seconds of a call; a rival slower than this takes part in three rounds only.
_SLOW_S = 5.0

Pipeline = Callable[[bytes], Outcome]


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        name: For people and for `ratios`.
        jpeg: The photo.
        size: Its `(H, W)`.
        classes: Number of classes.
        pipelines: Name → pipeline, or why it does not run; `REFERENCE` first, ours begin with "ours".
        about: What else has to be reported.
    """

    name: str
    jpeg: bytes
    size: tuple[int, int]
    classes: int
    pipelines: Mapping[str, Pipeline | str]
    about: Mapping[str, Any]


def resized_jpeg(photo: Path, height: int, width: int) -> bytes:
    """A photo brought to a size, as a JPEG of quality 90."""
    buffer = io.BytesIO()
    with open_image_file(photo) as image:
        image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=90
        )
    return buffer.getvalue()


def segmenting(segmenter: Segmenter) -> Pipeline:
    """A segmenter as a pipeline."""

    def run(jpeg: bytes) -> Outcome:
        result = segmenter.predict(jpeg)
        return result.labels, {stage: ms for stage, ms in result.speed.items() if stage != "total"}

    return run


def ours(bundle: Bundle, vocabulary: Vocabulary) -> Pipeline:
    """A bundle in the SDK, as users have it."""
    return segmenting(Segmenter.from_pretrained(bundle.path, classes=vocabulary))


def openvino(bundle: Bundle, vocabulary: Vocabulary, precision: str | None) -> Pipeline | str:
    """The same with OpenVINO in ONNX Runtime's place."""
    if reason := missing("openvino"):
        return reason
    graph = bundle.file("image_encoder.onnx")
    backend = OpenVinoBackend(graph, bundle.input, bundle.embedding_dim, precision)
    return segmenting(Segmenter(backend, bundle.input, vocabulary=vocabulary))


def compiled(make: Callable[[], TorchPipeline], jpeg: bytes) -> Pipeline | str:
    """``torch.compile``'s pipeline, compiled; or what it says where it cannot be."""
    pipeline = make()
    try:
        pipeline(jpeg)
    except Exception as error:  # Inductor raises its own and those of the compiler that it calls.
        return f"torch.compile: {str(error).strip().splitlines()[0]}"
    return pipeline


def lite_case(folder: Path, photos: Sequence[Path], *, others: bool = True) -> Case:
    """pixelclip-lite, a 640×480 JPEG, 20 classes.

    Args:
        folder: Where bundles are kept.
        photos: Real photos: one to verify on, the others to calibrate int8.
        others: Also what takes long: other precisions, OpenVINO, ``torch.compile``, CLIPSeg.
    """
    pair, size = load_model(LITE), (480, 640)
    jpeg = resized_jpeg(PHOTOS / "coffee.jpg", *size)
    shipped = Segmenter.from_pretrained("pixelclip-lite", classes=SAMPLE_WORDS)
    # Without the text encoder's hash: the other precisions' text encoders differ by rounding.
    words = Vocabulary(names=shipped.vocabulary.names, embeddings=shipped.vocabulary.embeddings)

    def plain(compiled: bool = False) -> TorchPipeline:
        return TorchPipeline(pair, words.embeddings, official=False, compiled=compiled)

    pipelines: dict[str, Pipeline | str] = {REFERENCE: plain(), "ours, as shipped": segmenting(shipped)}
    if others:
        bundles = {
            precision: bundle_of(
                pair, precision, folder, photos, gate=LITE_INT8_GATE if precision == "int8" else None
            )
            for precision in ("fp32", "fp16", "int8")
        }
        pipelines["torch.compile"] = compiled(lambda: plain(compiled=True), jpeg)
        pipelines |= {f"ours, {precision}": ours(bundle, words) for precision, bundle in bundles.items()}
        pipelines["OpenVINO, fp32"] = openvino(bundles["fp32"], words, "f32")
        pipelines["OpenVINO, its choice"] = openvino(bundles["fp32"], words, None)
        pipelines["CLIPSeg"] = missing("transformers") or ClipSeg(len(words))
    about = {"weights": "real", "int8 calibrated on": len(photos) - 1}
    return Case("lite", jpeg, size, len(words), pipelines, about)


def vit_case(folder: Path, photos: Sequence[Path]) -> Case:
    """ViT-B/16 at 320², a 1080p JPEG, 150 classes."""
    pair, size = random_vit(), (1080, 1920)
    jpeg = resized_jpeg(PHOTOS / "coffee.jpg", *size)
    # No gate: features of random weights are nearly alike everywhere, and labels mean nothing.
    fp32, fp16, int8 = (
        bundle_of(pair, precision, folder, photos[:3], gate=0.0) for precision in ("fp32", "fp16", "int8")
    )
    with Segmenter.from_pretrained(fp32.path) as segmenter:
        words = places(segmenter.features(jpeg), 150)

    def plain(compiled: bool = False) -> TorchPipeline:
        return TorchPipeline(pair, words.embeddings, official=True, compiled=compiled)

    pipelines: dict[str, Pipeline | str] = {
        REFERENCE: plain(),
        "torch.compile": compiled(lambda: plain(compiled=True), jpeg),
        "ours, fp32": ours(fp32, words),
        "ours, fp16": ours(fp16, words),
        "ours, int8": ours(int8, words),
        "OpenVINO, fp32": openvino(fp32, words, "f32"),
        "OpenVINO, its choice": openvino(fp32, words, None),
        "CLIPSeg": "not measured with 150 prompts: it is one forward a prompt; see lite",
    }
    return Case("vit", jpeg, size, len(words), pipelines, {"weights": "random, seed 0"})


def places(features: np.ndarray, count: int) -> Vocabulary:
    """Embeddings of some places of a photo, `(h, w, D)`, without what all places share."""
    cells = features.reshape(-1, features.shape[-1])
    chosen = cells[np.random.default_rng(0).choice(len(cells), count, replace=False)] - cells.mean(0)
    chosen /= np.linalg.norm(chosen, axis=1, keepdims=True)
    return Vocabulary(names=[f"place {i}" for i in range(count)], embeddings=chosen)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """A case's rows: milliseconds, stages, ratio to the reference, share of labels equal to its."""
    stages: dict[str, list[dict[str, float]]] = {}
    labels: dict[str, np.ndarray] = {}

    def turn(name: str, pipeline: Pipeline) -> Callable[[], None]:
        def run() -> None:
            labels[name], laps = pipeline(case.jpeg)
            stages.setdefault(name, []).append(laps)

        return run

    running = {n: turn(n, p) for n, p in case.pipelines.items() if not isinstance(p, str)}
    warmup = 1
    samples = in_turns(running, rounds, warmup=warmup, slow_s=_SLOW_S)
    times = medians(samples)
    rows: list[dict[str, Any]] = []
    for name, pipeline in case.pipelines.items():
        if isinstance(pipeline, str):
            rows.append({"name": name, "reason": pipeline})
            continue
        laps = stages[name][1::2][warmup:]  # of the second call of each turn
        rows.append(
            {
                "name": name,
                "rounds": len(samples[name]),
                "ms": times[name],
                "min_ms": min(samples[name]),
                "stages_ms": {stage: statistics.median(lap[stage] for lap in laps) for stage in laps[0]},
                "speedup": times[REFERENCE] / times[name],
                "equal_labels": None
                if name in _OTHER_MODELS
                else float((labels[name] == labels[REFERENCE]).mean()),
            }
        )
    return {
        "name": case.name,
        "image_size": list(case.size),
        "classes": case.classes,
        **case.about,
        "rows": rows,
    }


def table(case: Mapping[str, Any]) -> str:
    """A case for people."""
    height, width = case["image_size"]
    lines = [
        f"{case['name']}: {width}×{height}, {case['classes']} classes, weights {case['weights']}",
        f"{'':<22}{'ms':>9}{'speed':>9}{'equal labels':>14}  stages",
    ]
    for row in case["rows"]:
        if "reason" in row:
            lines.append(f"{row['name']:<22}{'':>9} {row['reason']}")
            continue
        equal = "" if row["equal_labels"] is None else f"{row['equal_labels']:.2%}"
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in row["stages_ms"].items())
        lines.append(f"{row['name']:<22}{row['ms']:9.1f}{row['speedup']:8.2f}×{equal:>14}  {stages}")
    return "\n".join(lines)


def ratios(cases: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Our rows' speed against the reference, and OpenVINO's, by name."""
    return {
        f"{case['name']}: {row['name']} against {REFERENCE}": row["speedup"]
        for case in cases
        for row in case["rows"]
        if row["name"].startswith(("ours", "OpenVINO")) and "speedup" in row
    }


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", choices=["lite", "vit"], help="only this one (default: both)")
    parser.add_argument(
        "--rounds", type=positive, default=15, help="measured runs of each (default: %(default)s)"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        default=PHOTOS,
        metavar="DIR",
        help=f"real photos (JPEG) to calibrate int8 on; {_CALIBRATION} of them are taken (default: ours)",
    )
    parser.add_argument(
        "--bundles", type=Path, metavar="DIR", help="keep exported bundles here; they are taken if there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    photos = sorted(options.photos.glob("*.jpg"))
    if len(photos) < 2:
        parser.error(f"{len(photos)} photos (*.jpg) in {options.photos}; expected at least 2")
    random.Random(0).shuffle(photos)
    torch.set_num_threads(default_threads())
    makers = {"lite": lite_case, "vit": vit_case}
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.bundles or Path(temporary)
        for name, make in makers.items():
            if options.case in (None, name):
                results.append(measure(make(folder, photos[: _CALIBRATION + 1]), options.rounds))
                print(table(results[-1]), end="\n\n")
    if options.json:
        facts = {**environment(), "torch": torch.__version__, "threads": default_threads()}
        content = {"reference": REFERENCE, "cases": results, "ratios": ratios(results), "environment": facts}
        store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
