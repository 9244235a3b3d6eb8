"""Latency of a model, stage by stage and end to end: ``python benchmarks/latency.py``.

Besides what ``pixelclip benchmark`` measures, it takes the three times that a person waits for: the import,
the model, and new words. Each is measured in processes of their own, cold, median of several.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from pixelclip_sdk import Segmenter
from pixelclip_sdk.benchmark import SAMPLE_WORDS, measure_latency, sample_jpeg

# Runs in a fresh interpreter, which prints the four times in seconds as JSON.
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
print(json.dumps({
    "import pixelclip_sdk": t1 - t0,
    "import Segmenter": t2 - t1,
    "from_pretrained": t3 - t2,
    "first 20 words (loads the text encoder)": t4 - t3,
    "20 other words": t5 - t4,
}))
"""


def cold_start(model: str, runs: int) -> dict[str, float]:
    """Median seconds of each step of a fresh process, after one that warms the file cache."""
    samples = []
    for _ in range(runs + 1):
        command = [sys.executable, "-c", _COLD_START, model, SAMPLE_WORDS]
        samples.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return {step: statistics.median(sample[step] for sample in samples[1:]) for step in samples[0]}


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--image", type=Path, help="an image file (default: a made-up 640×480 JPEG)")
    parser.add_argument("--runs", type=int, default=100, help="measured frames (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    start = cold_start(options.model, runs=5)
    with Segmenter.from_pretrained(options.model, classes=SAMPLE_WORDS) as segmenter:
        jpeg = options.image.read_bytes() if options.image else sample_jpeg()
        report = measure_latency(segmenter, jpeg, runs=options.runs)
    print(report.table())
    print("\nseconds, in a fresh process")
    for step, seconds in start.items():
        print(f"{step:<42}{seconds:7.3f}")
    if options.json:
        result: dict[str, Any] = {**report.to_json(), "cold_start_s": start}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
