"""Run time of the encoder against its lower bound on this machine: ``python benchmarks/roofline.py``.

The floor of an encoder is the longer of two times: its operations at the peak rate of matrix products (fp32
or int8), and its bytes at memory bandwidth. Only unavoidable work counts: products, weights once, inputs and
output. Peak rates are the median of the fastest library. Rates and stages are measured in turns with the
SDK's threads; stages are medians. fp32 encoders are also profiled by kind of operator.
"""

import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.floors.graph_cost import GraphCost, graph_cost
from benchmarks.floors.operators import profile
from benchmarks.harness import tables
from benchmarks.harness.machine import Work, floor_ms, machine_work, peak_rates
from benchmarks.harness.models import LITE_INT8_GATE, cached_bundle, grid_vocabulary, random_vit
from benchmarks.harness.photos import PHOTOS, photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns
from pixelclip_sdk import Bundle, Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import SAMPLE_WORDS
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.preprocess import fit
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from training.models.load import load_model
from training.models.registry import LITE

__all__ = ["Case", "lite_case", "main", "measure"]

_VIT = "ViT-B/16, random weights"


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its classes and an image.

    Attributes:
        bundle: The model.
        vocabulary: The classes.
        jpeg: The image.
    """

    bundle: Bundle
    vocabulary: Vocabulary
    jpeg: bytes

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """Inputs of the encoder: `image` `(1, h, w, 3)` uint8, `text` `(K, D)` float32."""
        image = fit(load_image(self.jpeg), self.bundle.input)[None]
        return {"image": image, "text": self.vocabulary.embeddings}

    def cost(self) -> GraphCost:
        """Returns the cost of the encoder."""
        shapes = {name: array.shape for name, array in self.feeds.items()}
        return graph_cost(onnx.load(self.bundle.file(IMAGE_ENCODER)), shapes, "logits")


def lite_case(jpeg: bytes) -> Case:
    """pixelclip-lite with 20 classes."""
    with Segmenter.from_pretrained("pixelclip-lite", classes=SAMPLE_WORDS) as segmenter:
        return Case(find_bundle("pixelclip-lite"), segmenter.vocabulary, jpeg)


def _lite_cases(folder: Path, jpeg: bytes) -> dict[str, Case]:
    """pixelclip-lite as shipped and in int8."""
    photos, fp32 = find_images(PHOTOS), lite_case(jpeg)
    int8 = cached_bundle(load_model(LITE), "int8", folder, photos, gate=LITE_INT8_GATE)
    # Without the text encoder's hash: the bundles have text encoders that differ by rounding.
    words = Vocabulary(names=fp32.vocabulary.names, embeddings=fp32.vocabulary.embeddings)
    return {"pixelclip-lite": fp32, "pixelclip-lite, int8": Case(int8, words, jpeg)}


def _vit_cases(folder: Path, jpeg: bytes) -> dict[str, Case]:
    """ViT-B/16 at 320² with random weights and 20 classes, in fp32 and int8."""
    photos = find_images(PHOTOS)
    fp32, int8 = (cached_bundle(random_vit(), p, folder, photos, gate=0.0) for p in ("fp32", "int8"))
    with Segmenter.from_pretrained(fp32.path) as segmenter:
        words = grid_vocabulary(segmenter.features(jpeg), 20)
    return {_VIT: Case(fp32, words, jpeg), f"{_VIT}, int8": Case(int8, words, jpeg)}


def measure(cases: Mapping[str, Case], rounds: int, *, work: Work | None = None) -> dict[str, Any]:
    """Returns rates, stages, the encoder's floor, and operators of fp32 models.

    Args:
        cases: Name → case.
        rounds: Timed calls of each.
        work: Functions that measure the machine; default: `machine_work`.
    """
    work = work or machine_work()
    contenders = {name: call for name, (call, _) in work.items()}
    speeds: dict[str, list[Mapping[str, float]]] = {name: [] for name in cases}
    for name, case in cases.items():
        segmenter = Segmenter.from_pretrained(case.bundle.path, backend="onnx", classes=case.vocabulary)
        contenders[name] = partial(_predict, segmenter, case.jpeg, speeds[name])
    rates = peak_rates(work, in_turns(contenders, rounds))
    # The second call of each turn, without the warm-up.
    models = [
        _model(name, case, speeds[name][1::2][-rounds:], {n: rate["typical"] for n, rate in rates.items()})
        for name, case in cases.items()
    ]
    return {
        "rounds": rounds,
        "machine": {"threads": default_threads(), **rates},
        "models": models,
        "ratios": {
            f"{model['name']}: floor over inference, medians": 1 / row["over_typical_floor"]
            for model in models
            for row in model["stages"]
            if row["stage"] == "inference"
        },
    }


def _predict(segmenter: Segmenter, jpeg: bytes, speeds: list[Mapping[str, float]]) -> None:
    speeds.append(segmenter.predict(jpeg).speed)


def _model(
    name: str, case: Case, speeds: list[Mapping[str, float]], rates: Mapping[str, float]
) -> dict[str, Any]:
    """Returns a model's stages and operators."""
    cost, feeds = case.cost(), case.feeds
    stages: list[dict[str, Any]] = []
    for stage in speeds[0]:
        times = [speed[stage] for speed in speeds]
        stages.append({"stage": stage, "ms": statistics.median(times), "min_ms": min(times)})
        if stage == "inference":
            least, bound = floor_ms(cost.operations, cost.bytes, rates, cost.integer_operations)
            stages[-1] |= {
                **dataclasses.asdict(cost),
                "typical_floor_ms": least,
                "bound": bound,
                "over_typical_floor": stages[-1]["ms"] / least,
            }
    operators: list[dict[str, Any]] = []
    # ONNX Runtime fuses int8 graphs so much that their operators say little.
    if not cost.integer_operations:
        with tempfile.TemporaryDirectory() as folder:
            operators = profile(case.bundle.file(IMAGE_ENCODER), feeds, len(speeds), Path(folder))
    return {
        "name": name,
        "image_size": list(load_image(case.jpeg).shape[:2]),
        "input_size": list(feeds["image"].shape[1:3]),
        "classes": len(case.vocabulary),
        "precision": case.bundle.precision,
        "stages": stages,
        "operators": operators,
    }


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=30)
    parser.add_argument("--case", choices=["lite", "vit"], help="only this one (default: both)")
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="keep exported bundles here for reuse")
    options = parser.parse_args()
    jpeg = photo_jpeg(480, 640)
    with tempfile.TemporaryDirectory() as temporary:
        folder, cases = options.bundles or Path(temporary), {}
        if options.case != "vit":
            cases |= _lite_cases(folder, jpeg)
        if options.case != "lite":
            cases |= _vit_cases(folder, jpeg)
        report = measure(cases, options.rounds)
    print("\n\n".join(tables.roofline(report)))
    store(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("roofline", main))
