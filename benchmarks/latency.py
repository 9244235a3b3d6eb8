"""Latency, cold start and memory of a model: ``python benchmarks/latency.py``.

Latency is that of ``pixelclip benchmark``. The cold start is measured in fresh processes: import, loading,
first words, first image, peak memory. Medians of five.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import tables
from benchmarks.harness.results import command_parser, store
from pixelclip_sdk import Segmenter
from pixelclip_sdk.benchmark import SAMPLE_WORDS, measure_latency, sample_jpeg
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.command import run_command

_STEPS = {
    "import pixelclip_sdk": "import pixelclip_sdk",
    "import Segmenter": "from pixelclip_sdk import Segmenter",
    "from_pretrained": "segmenter = Segmenter.from_pretrained(model)",
    "first 20 words (loads the text encoder)": "segmenter.set_classes(words)",
    "20 other words": "segmenter.set_classes(words.replace(', ', ' one, ') + ' one')",
    "first picture": "segmenter.predict(jpeg)",
}
# Runs in a fresh interpreter; prints seconds and megabytes as JSON.
_COLD_START = """
import json, sys, time
steps, model, words, image = sys.argv[1:]
jpeg, seconds = open(image, "rb").read(), {}
for name, step in json.loads(steps).items():
    start = time.perf_counter()
    exec(step)
    seconds[name] = time.perf_counter() - start
for _ in range(10):
    segmenter.predict(jpeg)
from benchmarks.harness.memory import memory_mb
print(json.dumps([seconds, memory_mb("VmHWM") if sys.platform == "linux" else None]))
"""


def cold_start(model: str, jpeg: bytes, runs: int) -> tuple[dict[str, float], float | None]:
    """Measure fresh processes, after one that warms the file cache.

    Returns median seconds of each step, and median peak memory in megabytes over eleven images (Linux).
    """
    samples = []
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(jpeg)
        file.flush()
        command = [sys.executable, "-c", _COLD_START, json.dumps(_STEPS), model, SAMPLE_WORDS, file.name]
        for _ in range(runs + 1):
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            samples.append(json.loads(output))
    seconds, peaks = zip(*samples[1:], strict=True)
    steps = {step: statistics.median(sample[step] for sample in seconds) for step in _STEPS}
    return steps, None if None in peaks else statistics.median(peaks)


def main() -> int:
    """Run the command and return its exit code."""
    parser = command_parser(__doc__, runs=100)
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--image", type=Path, help="image file (default: a synthetic 640×480 JPEG)")
    options = parser.parse_args()
    jpeg = options.image.read_bytes() if options.image else sample_jpeg()
    find_bundle(options.model)  # Reports an unknown name before processes are started.
    steps, peak = cold_start(options.model, jpeg, runs=5)
    with Segmenter.from_pretrained(options.model, classes=SAMPLE_WORDS) as segmenter:
        report = measure_latency(segmenter, jpeg, runs=options.runs)
    encoder = report.stages["inference"]["p50"] / report.stages["total"]["p50"]
    print(report.table())
    print(f"outside the encoder: {1 - encoder:.1%} of the time\n\n{tables.seconds(steps)}")
    if peak is not None:
        print(f"peak memory: {peak:.0f} MB")
    content = {
        **report.to_json(),
        "cold_start_s": steps,
        "peak_mb": peak,
        "ratios": {"encoder's share of the time": encoder},
    }
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("latency", main))
