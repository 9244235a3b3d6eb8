"""What does a smaller model keep? ``python benchmarks/distillation/compare.py --teacher A --student B …``.

Scores two bundles on labelled photos (mIoU, protocol `whole`) and on photos named after what they show, both
without refinement, and times their image encoders by turns.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.photos import photo_jpeg
from benchmarks.harness.results import ROOT, command_parser, store
from benchmarks.harness.turns import in_turns, medians
from benchmarks.photo_test import photo_test
from pixelclip_sdk import Segmenter, Vocabulary
from pixelclip_sdk.backends.choose import open_backend
from pixelclip_sdk.benchmark import SAMPLE_WORDS
from pixelclip_sdk.bundle import Bundle
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.preprocess import fit
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.words.text_encoder import TextEncoder
from training.evaluation.datasets import Dataset
from training.evaluation.open_model import Source
from training.evaluation.protocols import Whole
from training.evaluation.scoring import Job, evaluate
from training.evaluation.sets import load_sets

SETS = ROOT / "training" / "evaluation" / "development.yaml"


def compare(
    teacher: Path, student: Path, data: Mapping[str, Dataset], *, named: Path | None, rounds: int
) -> dict[str, Any]:
    """Returns scores (0-1) and the time of both bundles, and the student's as a share of the teacher's.

    `data` is name → labelled photos, `named` a folder for `benchmarks.photo_test`.
    """
    folders = {"teacher": teacher, "student": student}
    bundles = {role: Bundle.open(folder) for role, folder in folders.items()}
    scores: dict[str, dict[str, float]] = {}
    for name, photos in data.items():
        scores[name] = {}
        for role, folder in folders.items():
            source = Source(name=str(folder), bundle=True, device="cpu")
            confusion, _ = evaluate(
                Job(source=source, dataset=photos, protocol=Whole(refine="off")), progress=False
            )
            scores[name][role] = confusion.miou
    if named:
        scores["own name largest"] = {}
        for role, folder in folders.items():
            with Segmenter.from_pretrained(folder, device="cpu", refine="off") as segmenter:
                scores["own name largest"][role] = photo_test(segmenter, named).largest
    ms = encoder_ms(bundles, rounds)
    return {
        "teacher": _about(bundles["teacher"]),
        "student": _about(bundles["student"]),
        "scores": scores,
        "kept": {name: pair["student"] / pair["teacher"] for name, pair in scores.items()},
        "encoder_ms": ms,
        "time_share": ms["student"] / ms["teacher"],
    }


def encoder_ms(bundles: Mapping[str, Bundle], rounds: int) -> dict[str, float]:
    """Returns the median time of each image encoder for a photo of 640×480 and 20 words, by turns."""
    image = load_image(photo_jpeg(480, 640))
    calls: dict[str, Callable[[], object]] = {}
    with contextlib.ExitStack() as stack:
        for name, bundle in bundles.items():
            backend = stack.enter_context(open_backend(bundle, "onnx", "cpu"))
            text = Vocabulary.encode(SAMPLE_WORDS, TextEncoder(bundle)).embeddings
            pixels = np.ascontiguousarray(fit(image, bundle.input))[None]
            calls[name] = partial(backend.logits, pixels, text)
        return medians(in_turns(calls, rounds, pause_s=0.02))


def _about(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "precision": bundle.precision,
        "input_size": [bundle.input.height, bundle.input.width],
        "image_encoder_mb": round(bundle.files["image_encoder.onnx"]["size"] / 1e6, 2),
        "sha256": bundle.files["image_encoder.onnx"]["sha256"],
    }


def summary(result: Mapping[str, Any]) -> str:
    """Returns a result as text."""
    lines = [
        f"{name}: teacher {pair['teacher']:.1%}, student {pair['student']:.1%}, "
        f"kept {result['kept'][name]:.1%}"
        for name, pair in result["scores"].items()
    ]
    ms = result["encoder_ms"]
    lines.append(
        f"image encoder: teacher {ms['teacher']:.1f} ms, student {ms['student']:.1f} ms, "
        f"share {result['time_share']:.2f}"
    )
    return "\n".join(lines)


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=50)
    parser.add_argument("--teacher", required=True, help="bundle: name or folder")
    parser.add_argument("--student", required=True, help="bundle: name or folder")
    text = "labelled data sets, as for evaluate.py (default: %(default)s)"
    parser.add_argument("--dataset", type=Path, default=SETS, metavar="FILE", help=text)
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data sets")
    parser.add_argument("--only", nargs="+", metavar="SET", help="score these sets alone")
    parser.add_argument("--named", type=Path, metavar="DIR", help="photos named after what they show")
    options = parser.parse_args()
    data = load_sets(options.dataset, options.root) if options.root else {}
    data = {name: photos for name, photos in data.items() if not options.only or name in options.only}
    teacher, student = (find_bundle(name).path for name in (options.teacher, options.student))
    result = compare(teacher, student, data, named=options.named, rounds=options.rounds)
    print(summary(result))
    store(options.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
