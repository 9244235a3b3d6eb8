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

__all__ = ["cold_start", "main"]

# Runs in a fresh interpreter; prints seconds and megabytes as JSON.
_COLD_START = """
import json, sys, time
t0 = time.perf_counter()
import pixelclip_sdk
t1 = time.perf_counter()
from pixelclip_sdk import Segmenter
t2 = time.perf_counter()
segmenter = Segmenter.from_pretrained(sys.argv[1])
t3 = time.perf_counter()
segmenter.set_classes(sys.argv[2])
t4 = time.perf_counter()
segmenter.set_classes(sys.argv[2].replace(", ", " one, ") + " one")
t5 = time.perf_counter()
jpeg = open(sys.argv[3], "rb").read()
t6 = time.perf_counter()
segmenter.predict(jpeg)
t7 = time.perf_counter()
for _ in range(10):
    segmenter.predict(jpeg)
status = open("/proc/self/status").read() if sys.platform == "linux" else ""
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6 if status else None
print(json.dumps({
    "import pixelclip_sdk": t1 - t0,
    "import Segmenter": t2 - t1,
    "from_pretrained": t3 - t2,
    "first 20 words (loads the text encoder)": t4 - t3,
    "20 other words": t5 - t4,
    "first picture": t7 - t6,
    "peak MB": peak,
}))
"""


def cold_start(model: str, jpeg: bytes, runs: int) -> tuple[dict[str, float], float | None]:
    """Measure fresh processes, after one that warms the file cache.

    Args:
        model: Name or folder.
        jpeg: The image.
        runs: Number of processes.

    Returns:
        Median seconds of each step. Median peak memory in megabytes over eleven images; None where the
        system is not Linux.
    """
    samples = []
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(jpeg)
        file.flush()
        command = [sys.executable, "-c", _COLD_START, model, SAMPLE_WORDS, file.name]
        for _ in range(runs + 1):
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            samples.append(json.loads(output))
    peaks = [sample.pop("peak MB") for sample in samples]
    steps = {step: statistics.median(sample[step] for sample in samples[1:]) for step in samples[0]}
    return steps, None if None in peaks else statistics.median(peaks[1:])


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
    content = {
        **report.to_json(),
        "cold_start_s": steps,
        "peak_mb": peak,
        "outside_encoder": 1 - encoder,
        "ratios": {"encoder's share of the time": encoder},
    }
    print(report.table())
    print(f"outside the encoder: {1 - encoder:.1%} of the time\n\n{tables.cold_start(content)}")
    if peak is not None:
        print(f"peak memory: {peak:.0f} MB")
    store(options.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("latency", main))
