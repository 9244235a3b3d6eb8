"""Latency of a model, stage by stage and end to end: ``python benchmarks/latency.py``.

Besides what ``pixelclip benchmark`` measures, it takes the times that a person waits for once: the import,
the model, new words, the first picture; and the memory. Each is measured in processes of their own, cold,
median of several.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness.stored import store
from pixelclip_sdk import Segmenter
from pixelclip_sdk.benchmark import SAMPLE_WORDS, measure_latency, sample_jpeg
from pixelclip_sdk.models import find_bundle
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command

# Runs in a fresh interpreter, which prints the times in seconds, and the memory, as JSON.
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
    """A fresh process, several times, after one that warms the file cache.

    Args:
        model: Name or folder.
        jpeg: The picture.
        runs: Processes.

    Returns:
        Median seconds of each step; and of the most memory, in megabytes, that such a process ever holds in
        eleven pictures, or None where Linux does not say.
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
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--image", type=Path, help="an image file (default: a made-up 640×480 JPEG)")
    parser.add_argument("--runs", type=positive, default=100, help="measured frames (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    jpeg = options.image.read_bytes() if options.image else sample_jpeg()
    find_bundle(options.model)  # An unknown name is said here, not in a process of its own.
    start, peak = cold_start(options.model, jpeg, runs=5)
    with Segmenter.from_pretrained(options.model, classes=SAMPLE_WORDS) as segmenter:
        report = measure_latency(segmenter, jpeg, runs=options.runs)
    print(report.table())
    encoder = report.stages["inference"]["p50"] / report.stages["total"]["p50"]
    print(f"outside the encoder {1 - encoder:.1%} of the time")
    print("\nseconds, in a fresh process")
    for step, seconds in start.items():
        print(f"{step:<42}{seconds:7.3f}")
    if peak is not None:
        print(f"{'most memory, MB':<42}{peak:7.0f}")
    if options.json:
        result: dict[str, Any] = {
            **report.to_json(),
            "cold_start_s": start,
            "peak_mb": peak,
            "outside_encoder": 1 - encoder,
            "ratios": {"encoder's share of the time": encoder},
        }
        store(options.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(run_command("latency", main))
