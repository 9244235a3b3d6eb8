"""Our CPU backends against their libraries used directly: ``python benchmarks/engines.py``.

ONNX Runtime and OpenVINO with their defaults take the place of the SDK's engine; everything else, from a
JPEG's bytes to labels, is the same. Cases are those of `benchmarks/compare.py`, without PyTorch. Pipelines
run in turns; times are medians. ``cpu_ms`` is the processor's time, which other programs disturb least.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.models import exported, grid_vocabulary, lite_words, random_vit
from benchmarks.harness.photos import PHOTOS, photo_jpeg
from benchmarks.harness.results import command_parser, store
from benchmarks.harness.rivals import OpenVinoBackend, missing
from benchmarks.harness.turns import in_turns, medians
from pixelclip_sdk import Backend, Bundle, PixelClipError, Segmenter, Vocabulary
from pixelclip_sdk.bundle import IMAGE_ENCODER
from pixelclip_sdk.support.command import run_command
from pixelclip_sdk.support.images import find_images
from training.models.load import load_model
from training.models.registry import LITE

# Ours → the library, used directly in the same precision.
_RIVALS = {"onnx": "onnxruntime", "openvino": "OpenVINO, f32", "openvino-bf16": "OpenVINO, bf16"}
Load = Callable[[], Segmenter]


class DirectOnnx(Backend):
    """A bundle in ONNX Runtime with default options."""

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.input
        super().__init__(
            embedding_dim=bundle.embedding_dim, multiple=spec.multiple, fixed_size=spec.only_size
        )
        file = bundle.file(IMAGE_ENCODER)
        import onnxruntime  # After pixelclip_sdk, which switches its telemetry off.

        self._session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    @property
    def description(self) -> str:
        """The engine's name."""
        return "onnxruntime"

    def _logits(self, images: Any, text: Any) -> Any:
        return self._session.run(["logits"], {"image": images, "text": text})[0]

    def _features(self, images: Any) -> Any:
        text = np.zeros((1, self.embedding_dim), np.float32)
        return self._session.run(["features"], {"image": images, "text": text})[0]


def case(name: str, folder: Path) -> tuple[Bundle, Vocabulary, bytes]:
    """Returns the fp32 bundle, the words and the JPEG of a case: ``"lite"`` or ``"vit"``."""
    photos = find_images(PHOTOS)
    if name == "lite":
        return exported(load_model(LITE), "fp32", folder, photos), lite_words(), photo_jpeg(480, 640)
    bundle = exported(random_vit(), "fp32", folder, photos, gate=0.0)
    jpeg = photo_jpeg(1080, 1920)
    return bundle, grid_vocabulary(bundle, jpeg, 150), jpeg


def loaders(bundle: Bundle, words: Vocabulary) -> dict[str, Load]:
    """Returns a function for each pipeline that loads it."""

    def ours(name: str) -> Segmenter:
        return Segmenter.from_pretrained(bundle.path, backend=name, device="cpu", classes=words)

    def direct(library: str) -> Segmenter:
        if library == "onnxruntime":
            return Segmenter(DirectOnnx(bundle), bundle.input, vocabulary=words)
        if reason := missing("openvino"):
            raise PixelClipError(reason)
        backend = OpenVinoBackend(bundle, library.rpartition(" ")[2])
        return Segmenter(backend, bundle.input, vocabulary=words)

    found: dict[str, Load] = {}
    for name, library in _RIVALS.items():
        found[f"ours, {name}"] = lambda name=name: ours(name)
        found[library] = lambda library=library: direct(library)
    return found


def measure(name: str, jpeg: bytes, loaders: dict[str, Load], rounds: int) -> dict[str, Any]:
    """Returns a case with its rows: milliseconds end to end and of the engine, and equal labels."""
    rows: dict[str, dict[str, Any]] = {}
    contenders, labels, laps = {}, {}, {}
    for pipeline, load in loaders.items():
        try:
            segmenter = load()
        except PixelClipError as error:
            rows[pipeline] = {"name": pipeline, "reason": str(error)}
            continue
        rows[pipeline] = {"name": pipeline, "engine": segmenter.engine_description}
        samples = laps[pipeline] = []

        def run(segmenter=segmenter, samples=samples, pipeline=pipeline) -> None:
            start = time.process_time()
            result = segmenter.predict(jpeg, refine="off")
            samples.append(((time.process_time() - start) * 1e3, result.speed["inference"]))
            labels[pipeline] = result.labels

        contenders[pipeline] = run
    times = medians(in_turns(contenders, rounds, warmup=1))
    reference = labels["ours, onnx"]
    for pipeline, ms in times.items():
        kept = laps[pipeline][1::2][1:]  # The second call of each turn, without the warm-up.
        cpu, inference = (statistics.median(column) for column in zip(*kept, strict=True))
        equal = float((labels[pipeline] == reference).mean())
        rows[pipeline] |= {"ms": ms, "cpu_ms": cpu, "inference_ms": inference, "equal_labels": equal}
    return {"name": name, "rounds": rounds, "rows": list(rows.values())}


def ratios(case: dict[str, Any]) -> dict[str, float]:
    """Returns how many times as fast ours are as the library, and the best of ours as the best library."""
    times = {row["name"]: row["ms"] for row in case["rows"] if "ms" in row}
    found = {
        f"{case['name']}: ours, {name} against {library}": times[library] / times[f"ours, {name}"]
        for name, library in _RIVALS.items()
        if library in times and f"ours, {name}" in times
    }
    for what, skipped in (("fp32", "bf16"), ("best", "none")):
        best = {
            ours: min(ms for n, ms in times.items() if n.startswith("ours") == ours and skipped not in n)
            for ours in (True, False)
        }
        found[f"{case['name']}: best of ours against the best library, {what}"] = best[False] / best[True]
    return found


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, rounds=40)
    parser.add_argument("--case", choices=("lite", "vit"), help="default: both")
    options = parser.parse_args()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.case] if options.case else ("lite", "vit"):
            bundle, words, jpeg = case(name, Path(folder))
            cases.append(measure(name, jpeg, loaders(bundle, words), options.rounds))
            for row in cases[-1]["rows"]:
                shown = {key: round(value, 4) for key, value in row.items() if isinstance(value, float)}
                print(f"{name:<5} {row['name']:<20} {row.get('reason', shown)}", flush=True)
    found = {key: value for one in cases for key, value in ratios(one).items()}
    for key, value in found.items():
        print(f"{value:5.2f}  {key}")
    store(options.json, {"cases": cases, "ratios": found})
    return 0


if __name__ == "__main__":
    sys.exit(run_command("engines", main))
