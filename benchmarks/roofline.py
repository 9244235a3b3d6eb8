"""How far from this machine's limits each stage is: ``python benchmarks/roofline.py``.

A stage cannot take less than its floor: the time of its operations at the machine's best matrix rate, in
fp32 or in int8 as the model has them, or that of its bytes at the best rate of main memory, whichever is
longer. Only what no method can avoid is counted: the model's products, and weights, inputs and results once
each. Rates and stages are measured in turns, in one run, with the SDK's threads. Stages are medians. Floors
are computed twice: with the best library's median rate, so that medians are compared with medians, as targets
are; and, stricter, with the best call's.

Then, with ONNX Runtime's profiler, where the encoder's time goes by kind of operator. An operator's own floor
has all that it reads and writes at the rate of main memory, so what stays in a cache may beat it.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.compare import LITE_INT8_GATE, places, resized_jpeg
from benchmarks.floors.graph_cost import GraphCost, graph_cost
from benchmarks.floors.operators import kinds, profile
from benchmarks.harness.machine import Work, floor, integer_work, matrix_work, memory_work, rates
from benchmarks.harness.models import PHOTOS, bundle_of, random_vit
from benchmarks.harness.stored import store
from benchmarks.harness.turns import in_turns
from pixelclip_sdk import Bundle, Segmenter, Vocabulary
from pixelclip_sdk.backends.onnx import default_threads
from pixelclip_sdk.benchmark import SAMPLE_WORDS, environment
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.image import load_image
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.postprocess import label_dtype
from pixelclip_sdk.preprocess import fit
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command
from training.models.load import load_model
from training.models.registry import LITE

__all__ = ["TARGETS", "Case", "main", "measure"]

_VIT = "ViT-B/16, random weights"

TARGETS = {"pixelclip-lite": 1.5, _VIT: 1.15}
"""Encoder's time over its floor that the project wants to stay below."""

_PICTURE = (480, 640)


@dataclass(frozen=True)
class Case:
    """A model at work.

    Attributes:
        bundle: The model.
        vocabulary: Its words.
        jpeg: The picture.
    """

    bundle: Bundle
    vocabulary: Vocabulary
    jpeg: bytes

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """What the encoder gets: `image` `(1, h, w, 3)` uint8, `text` `(K, D)` float32."""
        image = fit(load_image(self.jpeg), self.bundle.input)[None]
        return {"image": image, "text": self.vocabulary.embeddings}

    def cost(self) -> GraphCost:
        """Of the encoder, for this picture and these words."""
        shapes = {name: array.shape for name, array in self.feeds.items()}
        return graph_cost(onnx.load(self.bundle.file(IMAGE_ENCODER)), shapes, "logits")


def lite_case(jpeg: bytes) -> Case:
    """The bundled model with 20 words."""
    with Segmenter.from_pretrained("pixelclip-lite", classes=SAMPLE_WORDS) as segmenter:
        return Case(find_bundle("pixelclip-lite"), segmenter.vocabulary, jpeg)


def lite_int8_case(folder: Path, case: Case) -> Case:
    """The same model with all of its trunk in integers."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    bundle = bundle_of(load_model(LITE), "int8", folder, photos, gate=LITE_INT8_GATE)
    # Without the text encoder's hash: the two bundles' text encoders differ by rounding.
    words = Vocabulary(names=case.vocabulary.names, embeddings=case.vocabulary.embeddings)
    return dataclasses.replace(case, bundle=bundle, vocabulary=words)


def vit_cases(folder: Path, jpeg: bytes) -> tuple[Case, Case]:
    """ViT-B/16 at 320² with random weights in fp32 and in int8; 20 places of the photo are the words."""
    photos = sorted(PHOTOS.glob("*.jpg"))
    fp32, int8 = (bundle_of(random_vit(), p, folder, photos, gate=0.0) for p in ("fp32", "int8"))
    with Segmenter.from_pretrained(fp32.path) as segmenter:
        words = places(segmenter.features(jpeg), 20)
    return Case(fp32, words, jpeg), Case(int8, words, jpeg)


def work(case: Case, cost: GraphCost) -> dict[str, tuple[int, int, int]]:
    """What each stage cannot avoid: (operations, those of them in integers, bytes).

    decode: the file read, the pixels written; its bits come one after another, so no rate of operations
    applies. preprocess: a multiply-add for each value of the picture. postprocess: every logit compared
    once, a label written for each pixel.
    """
    feeds = case.feeds
    picture, small = load_image(case.jpeg), feeds["image"]
    classes, cells = len(case.vocabulary), _cells(case.bundle, small.shape)
    labels = picture[..., 0].size * np.dtype(label_dtype(classes)).itemsize
    return {
        "decode": (0, 0, len(case.jpeg) + picture.nbytes),
        "preprocess": (2 * picture.size, 0, picture.nbytes + small.nbytes),
        "inference": (cost.operations, cost.integer_operations, cost.weight_bytes + cost.edge_bytes),
        "postprocess": (classes * cells, 0, 4 * classes * cells + labels),
    }


def _cells(bundle: Bundle, shape: Sequence[int]) -> int:
    """Cells of the grid of an input `(1, h, w, 3)`: as many pixels each as at the nominal size."""
    spec, (rows, columns) = bundle.input, bundle.grid
    return rows * columns * shape[1] * shape[2] // (spec.height * spec.width)


def measure(
    cases: Mapping[str, Case],
    rounds: int,
    *,
    products: Work | None = None,
    integers: Work | None = None,
    memory: Work | None = None,
) -> dict[str, Any]:
    """Rates and stages of all cases, and the operators of those in fp32.

    Args:
        cases: Name → model at work.
        rounds: Calls of each.
        products: What measures the matrix rate; see `matrix_work`, the default.
        integers: What measures that of integers; see `integer_work`, the default.
        memory: What measures the memory rate; see `memory_work`, the default.
    """
    products, integers, memory = (
        products or matrix_work(),
        integers or integer_work(),
        memory or memory_work(),
    )
    laps: dict[str, list[Mapping[str, float]]] = {name: [] for name in cases}
    contenders: dict[str, Callable[[], object]] = {
        name: call for name, (call, _) in (products | integers | memory).items()
    }
    for name, case in cases.items():
        segmenter = Segmenter.from_pretrained(case.bundle.path, backend="onnx", classes=case.vocabulary)
        contenders[name] = _timed(segmenter, case.jpeg, laps[name])
    samples = in_turns(contenders, rounds)
    found = {
        name: rates(work, samples)
        for name, work in (("matrix", products), ("integer", integers), ("memory", memory))
    }
    limits, typical = ({name: rate[which] for name, rate in found.items()} for which in ("best", "typical"))
    matrix = found["matrix"]
    own = max((rate["median"] for name, rate in matrix["all"].items() if "onnxruntime" in name), default=None)
    models: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases.items():
            cost = case.cost()
            stages = _stages(laps[name][1::2][-rounds:], work(case, cost), limits, typical)
            operators: list[dict[str, Any]] = []
            # In integers ONNX Runtime fuses so much that its operators are not those of the graph.
            if not cost.integer_operations:
                profiled = profile(case.bundle.file(IMAGE_ENCODER), case.feeds, rounds, Path(folder))
                operators = kinds(profiled, cost, limits)
            models.append(
                {
                    "name": name,
                    "image_size": list(load_image(case.jpeg).shape[:2]),
                    "input_size": list(case.feeds["image"].shape[1:3]),
                    "classes": len(case.vocabulary),
                    "precision": case.bundle.precision,
                    "weight_bytes": cost.weight_bytes,
                    "stages": stages,
                    "operators": operators,
                    "encoder": _encoder(stages, operators, own),
                }
            )
    return {
        "rounds": rounds,
        "machine": {"threads": default_threads(), **found},
        "models": models,
        "ratios": {
            f"{model['name']}: floor over {row['stage']}, medians": 1 / row["over_typical_floor"]
            for model in models
            for row in model["stages"]
            if row["stage"] in ("inference", "total")
        },
        "targets": {name: TARGETS[name] for name in cases if name in TARGETS},
    }


def _timed(segmenter: Segmenter, jpeg: bytes, laps: list[Mapping[str, float]]) -> Callable[[], None]:
    """Predicts and keeps the stages' times."""
    return lambda: laps.append(segmenter.predict(jpeg).speed)


def _encoder(
    stages: Sequence[Mapping[str, Any]], operators: Sequence[Mapping[str, Any]], own: float | None
) -> dict[str, float | None]:
    """How the encoder's median compares with three floors; None for what was not measured.

    Args:
        stages: Rows of the stages.
        operators: Rows of the profile, none of a model in integers.
        own: ONNX Runtime's own median rate in products.
    """
    row = next(row for row in stages if row["stage"] == "inference")
    if not operators:
        own = None
    return {
        "over_typical_floor": row["over_typical_floor"],
        "over_own_products": row["ms"] / (row["operations"] / own * 1e3) if own else None,
        "over_operator_floors": row["ms"] / sum(operator["floor_ms"] for operator in operators)
        if operators
        else None,
    }


def _stages(
    laps: Sequence[Mapping[str, float]],
    needs: Mapping[str, tuple[int, int, int]],
    limits: Mapping[str, float],
    typical: Mapping[str, float],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for stage, (operations, integers, moved) in needs.items():
        least, bound = floor(operations, moved, limits, integers)
        rows.append(
            {
                "stage": stage,
                "operations": operations,
                "integer_operations": integers,
                "bytes": moved,
                "floor_ms": least,
                "typical_floor_ms": floor(operations, moved, typical, integers)[0],
                "bound": bound,
            }
        )
    sums = {key: sum(row[key] for row in rows) for key in ("floor_ms", "typical_floor_ms")}
    rows.append({"stage": "total", **sums})
    for row in rows:
        times = [lap[row["stage"]] for lap in laps]
        row |= {"ms": statistics.median(times), "min_ms": min(times)}
        row |= {"over_floor": row["ms"] / row["floor_ms"], "min_over_floor": row["min_ms"] / row["floor_ms"]}
        row |= {"over_typical_floor": row["ms"] / row["typical_floor_ms"]}
    return rows


def table(report: Mapping[str, Any]) -> str:
    """The report for people."""
    machine = report["machine"]
    lines = [
        f"best rates with {machine['threads']} threads: fp32 products "
        f"{machine['matrix']['best'] / 1e9:.0f} Gop/s, int8 {machine['integer']['best'] / 1e9:.0f} Gop/s, "
        f"main memory {machine['memory']['best'] / 1e9:.1f} GB/s"
    ]
    for model in report["models"]:
        (height, width), (rows, columns) = model["image_size"], model["input_size"]
        lines += [
            "",
            f"{model['name']}: {width}×{height}, input {columns}×{rows}, {model['classes']} classes, "
            f"{model['weight_bytes'] / 1e6:.0f} MB of weights",
            f"{'stage':<22}{'Gop':>9}{'MB':>9}{'ms':>9}{'fastest':>9}{'floor':>9}{'× floor':>9}  bound by",
        ]
        lines += [
            f"{row['stage']:<22}{_amount(row)}{row['ms']:9.2f}{row['min_ms']:9.2f}{row['floor_ms']:9.2f}"
            f"{row['over_floor']:9.2f}  {row.get('bound', '')}"
            for row in model["stages"]
        ]
        if target := report["targets"].get(model["name"]):
            reached = model["encoder"]["over_typical_floor"]
            verdict = "reached" if reached <= target else "missed"
            lines.append(f"target: inference within {target} of its floor; it takes {reached:.2f}: {verdict}")
        if model["operators"]:
            lines.append(
                f"{'operator':<22}{'Gop':>9}{'MB':>9}{'ms':>9}{'share':>9}{'floor':>9}{'× floor':>9}"
            )
        lines += [
            f"{row['kind']:<22}{_amount(row)}{row['ms']:9.2f}{row['share']:9.1%}{row['floor_ms']:9.2f}"
            + (f"{row['over_floor']:9.2f}" if row["over_floor"] else "")
            for row in model["operators"]
        ]
        lines += [
            f"{row['kind']} ran faster than the best product: the rates were disturbed, measure again"
            for row in model["operators"]
            if row["operations"] / machine["matrix"]["best"] * 1e3 > row["ms"]
        ]
    return "\n".join(lines)


def _amount(row: Mapping[str, Any]) -> str:
    if "bytes" not in row:
        return " " * 18
    return f"{row['operations'] / 1e9:9.3f}{row['bytes'] / 1e6:9.2f}"


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", choices=["lite", "vit"], help="only this one (default: both)")
    parser.add_argument(
        "--rounds", type=positive, default=30, help="measured calls of each (default: %(default)s)"
    )
    parser.add_argument(
        "--bundles", type=Path, metavar="DIR", help="keep exported bundles here; they are taken if there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    jpeg = resized_jpeg(PHOTOS / "coffee.jpg", *_PICTURE)
    with tempfile.TemporaryDirectory() as temporary:
        cases = {}
        bundles = options.bundles or Path(temporary)
        if options.case != "vit":
            cases["pixelclip-lite"] = lite_case(jpeg)
            cases["pixelclip-lite, int8"] = lite_int8_case(bundles, cases["pixelclip-lite"])
        if options.case != "lite":
            cases[_VIT], cases[f"{_VIT}, int8"] = vit_cases(bundles, jpeg)
        report = measure(cases, options.rounds)
    print(table(report))
    if options.json:
        store(options.json, {**report, "environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("roofline", main))
