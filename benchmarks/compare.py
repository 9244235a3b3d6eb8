"""Our pipelines against others, from a JPEG's bytes to labels: ``python benchmarks/compare.py``.

Two cases: pixelclip-lite, 640×480, 20 classes; ViT-B/16 at 320², 1080p, 150 classes. The reference is the
plain PyTorch pipeline with the same model, input size and embeddings (`benchmarks/harness/rivals.py`).
Pipelines run in turns; times are medians. Those that are not installed are listed with the reason.

The ViT has random weights, which show speed but not labels. Its 150 embeddings are those of 150 grid cells
of the photo, so that its label map has regions to compare.
"""

import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import tables
from benchmarks.harness.models import LITE_INT8_GATE, exported, grid_vocabulary, lite_words, random_vit
from benchmarks.harness.photos import PHOTOS, photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.rivals import ClipSeg, OpenVinoBackend, Outcome, TorchPipeline, missing
from benchmarks.harness.turns import in_turns, medians
from pixelclip_sdk import Bundle, Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from training.models.load import load_model
from training.models.pair import EncoderPair
from training.models.registry import LITE

REFERENCE = "PyTorch"
_CALIBRATION = 32
_SLOW_S = 5.0  # Slower pipelines run three times only.

Pipeline = Callable[[bytes], Outcome]
Case = tuple[dict[str, Any], bytes, dict[str, Pipeline | str]]
"""Facts for the result, the JPEG, and pipelines by name; a string is the reason why one does not run."""


def lite_case(folder: Path, photos: Sequence[Path]) -> Case:
    """pixelclip-lite, a 640×480 JPEG, 20 classes. Bundles are exported to the folder with the photos."""
    pair, size, words = load_model(LITE), (480, 640), lite_words()
    jpeg = photo_jpeg(*size)
    gates = {"fp32": None, "fp16": None, "int8": LITE_INT8_GATE}
    bundles = {p: exported(pair, p, folder, photos, gate=gate) for p, gate in gates.items()}
    pipelines = _pipelines(pair, bundles, words, jpeg, official=False)
    pipelines |= {
        "ours, as shipped": sdk_pipeline(Segmenter.from_pretrained("pixelclip-lite", classes=words)),
        "CLIPSeg": missing("transformers") or ClipSeg(len(words)),
    }
    facts = {"name": "lite", "image_size": size, "classes": len(words), "weights": "real"}
    return {**facts, "int8 calibrated on": len(photos) - 1}, jpeg, pipelines


def vit_case(folder: Path, photos: Sequence[Path]) -> Case:
    """ViT-B/16 at 320², a 1080p JPEG, 150 classes; see `lite_case`."""
    pair, size = random_vit(), (1080, 1920)
    jpeg = photo_jpeg(*size)
    # No gate: labels of random weights mean nothing.
    bundles = {p: exported(pair, p, folder, photos[:3], gate=0.0) for p in ("fp32", "fp16", "int8")}
    words = grid_vocabulary(bundles["fp32"], jpeg, 150)
    pipelines = _pipelines(pair, bundles, words, jpeg, official=True)
    pipelines["CLIPSeg"] = "not measured with 150 prompts, which are 150 forwards; see lite"
    facts = {"name": "vit", "image_size": size, "classes": len(words), "weights": "random, seed 0"}
    return facts, jpeg, pipelines


def _pipelines(
    pair: EncoderPair, bundles: Mapping[str, Bundle], words: Vocabulary, jpeg: bytes, *, official: bool
) -> dict[str, Pipeline | str]:
    """Pipelines that both cases have."""
    compiled: Pipeline | str = TorchPipeline(pair, words.embeddings, official=official, compiled=True)
    try:
        compiled(jpeg)
    except Exception as error:  # Inductor raises errors of its own and of the C++ compiler.
        compiled = f"torch.compile: {str(error).strip().splitlines()[0]}"
    pipelines = {
        REFERENCE: TorchPipeline(pair, words.embeddings, official=official),
        "torch.compile": compiled,
    }
    for name, bundle in bundles.items():
        pipelines[f"ours, {name}"] = sdk_pipeline(Segmenter.from_pretrained(bundle.path, classes=words))
    fp32 = bundles["fp32"]
    for name, precision in (("OpenVINO, fp32", "f32"), ("OpenVINO, its choice", None)):
        if reason := missing("openvino"):
            pipelines[name] = reason
        else:
            backend = OpenVinoBackend(fp32, precision)
            pipelines[name] = sdk_pipeline(Segmenter(backend, fp32.input, vocabulary=words))
    return pipelines


def sdk_pipeline(segmenter: Segmenter) -> Pipeline:
    """Returns a segmenter as a pipeline that computes what the others do, without refinement."""

    def run(jpeg: bytes) -> Outcome:
        result = segmenter.predict(jpeg, refine="off")
        return result.labels, {stage: ms for stage, ms in result.speed.items() if stage != "total"}

    return run


def measure(
    facts: Mapping[str, Any], jpeg: bytes, pipelines: Mapping[str, Pipeline | str], rounds: int
) -> dict[str, Any]:
    """Returns a case with its rows: milliseconds, stages, speed and equal labels against `REFERENCE`."""
    stages: dict[str, list[dict[str, float]]] = {}
    labels: dict[str, np.ndarray] = {}

    def contender(name: str, pipeline: Pipeline) -> Callable[[], None]:
        def run() -> None:
            labels[name], laps = pipeline(jpeg)
            stages.setdefault(name, []).append(laps)

        return run

    contenders = {n: contender(n, p) for n, p in pipelines.items() if not isinstance(p, str)}
    samples = in_turns(contenders, rounds, warmup=1, slow_s=_SLOW_S)
    times = medians(samples)
    rows: list[dict[str, Any]] = []
    for name, pipeline in pipelines.items():
        if isinstance(pipeline, str):
            rows.append({"name": name, "reason": pipeline})
            continue
        laps = stages[name][1::2][1:]  # The second call of each turn, without the warm-up.
        same_classes = name != "CLIPSeg"
        rows.append(
            {
                "name": name,
                "rounds": len(samples[name]),
                "ms": times[name],
                "min_ms": min(samples[name]),
                "stages_ms": {stage: statistics.median(lap[stage] for lap in laps) for stage in laps[0]},
                "speedup": times[REFERENCE] / times[name],
                "equal_labels": float((labels[name] == labels[REFERENCE]).mean()) if same_classes else None,
            }
        )
    return {**facts, "rows": rows}


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=15)
    cases = {"lite": lite_case, "vit": vit_case}
    parser.add_argument("--case", choices=cases, help="default: both")
    about = f"real photos; up to {_CALIBRATION} calibrate int8 (default: examples/photos)"
    parser.add_argument("--photos", type=Path, default=PHOTOS, metavar="DIR", help=about)
    options = parser.parse_args()
    photos = find_images(options.photos)
    if len(photos) < 2:
        parser.error(f"{len(photos)} photo in {options.photos}; expected at least 2")
    random.Random(0).shuffle(photos)
    torch.set_num_threads(default_threads())
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.case] if options.case else cases:
            case = cases[name](Path(folder), photos[: _CALIBRATION + 1])
            results.append(measure(*case, options.rounds))
            print(f"{name}\n\n{tables.comparison(results[-1], REFERENCE)}\n")
    ratios = {
        f"{case['name']}: {row['name']} against {REFERENCE}": row["speedup"]
        for case in results
        for row in case["rows"]
        if row["name"].startswith(("ours", "OpenVINO")) and "speedup" in row
    }
    store(options.json, {"reference": REFERENCE, "cases": results, "ratios": ratios})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("compare", main))
