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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.floors.graph_cost import GraphCost, graph_cost
from benchmarks.floors.operators import profile
from benchmarks.harness import tables
from benchmarks.harness.machine import Work, floor_ms, machine_work, peak_rates
from benchmarks.harness.models import LITE_INT8_GATE, exported, grid_vocabulary, lite_words, random_vit
from benchmarks.harness.photos import PHOTOS, photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.turns import in_turns
from pixelclip_sdk import Bundle, Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.preprocess import fit
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from training.models.load import load_model
from training.models.registry import LITE

_VIT = "ViT-B/16, random weights"


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, its classes and an image."""

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
    """pixelclip-lite as shipped, with 20 classes."""
    return Case(find_bundle("pixelclip-lite"), lite_words(), jpeg)


def _cases(folder: Path, jpeg: bytes) -> dict[str, Case]:
    """pixelclip-lite, and ViT-B/16 at 320² with random weights; 20 classes, in fp32 and int8."""
    photos, lite, vit = find_images(PHOTOS), lite_case(jpeg), random_vit()
    lite_int8 = exported(load_model(LITE), "int8", folder, photos, gate=LITE_INT8_GATE)
    fp32, int8 = (exported(vit, precision, folder, photos, gate=0.0) for precision in ("fp32", "int8"))
    words = grid_vocabulary(fp32, jpeg, 20)
    return {
        "pixelclip-lite": lite,
        "pixelclip-lite, int8": Case(lite_int8, lite.vocabulary, jpeg),
        _VIT: Case(fp32, words, jpeg),
        f"{_VIT}, int8": Case(int8, words, jpeg),
    }


def measure(cases: Mapping[str, Case], rounds: int, *, work: Work | None = None) -> dict[str, Any]:
    """Returns rates, stages, the encoder's floor, and operators of fp32 models."""
    work = work or machine_work()
    speeds: dict[str, list[Mapping[str, float]]] = {name: [] for name in cases}

    def contender(name: str, case: Case) -> Callable[[], None]:
        segmenter = Segmenter.from_pretrained(case.bundle.path, backend="onnx", classes=case.vocabulary)
        return lambda: speeds[name].append(segmenter.predict(case.jpeg).speed)

    contenders = {name: call for name, (call, _) in work.items()}
    contenders |= {name: contender(name, case) for name, case in cases.items()}
    rates = peak_rates(work, in_turns(contenders, rounds))
    models, ratios = [], {}
    for name, case in cases.items():
        # The second call of each turn, without the warm-up.
        model = _model(name, case, speeds[name][1::2][-rounds:], rates)
        over = next(row["over_typical_floor"] for row in model["stages"] if row["stage"] == "inference")
        ratios[f"{name}: floor over inference, medians"] = 1 / over
        models.append(model)
    machine = {"threads": default_threads(), **{name: {"typical": rate} for name, rate in rates.items()}}
    return {"rounds": rounds, "machine": machine, "models": models, "ratios": ratios}


def _model(
    name: str, case: Case, speeds: list[Mapping[str, float]], rates: Mapping[str, float]
) -> dict[str, Any]:
    """Returns a model's stages and operators."""
    cost, feeds = case.cost(), case.feeds
    floor = floor_ms(cost.operations, cost.bytes, rates, cost.integer_operations)
    stages: list[dict[str, Any]] = []
    for stage in speeds[0]:
        times = [speed[stage] for speed in speeds]
        stages.append({"stage": stage, "ms": statistics.median(times), "min_ms": min(times)})
        if stage == "inference":
            over = stages[-1]["ms"] / floor
            stages[-1] |= {**dataclasses.asdict(cost), "typical_floor_ms": floor, "over_typical_floor": over}
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder), photo_jpeg(480, 640))
        report = measure(cases, options.rounds)
    print("\n\n".join(tables.roofline(report)))
    store(options.json, report)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("roofline", main))
