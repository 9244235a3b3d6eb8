"""Latency of a model in every backend on this machine: ``python benchmarks/backends.py``.

Measured from a JPEG's bytes to labels, plus the time from nothing to the first result. Backends that do not
run are listed with the reason.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import tables
from benchmarks.harness.results import command_parser, store
from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.benchmark import SAMPLE_WORDS, measure_latency, sample_jpeg
from pixelclip_sdk.support.command import run_command

_ONNX_BACKENDS = (("onnx", "cpu"), ("onnx", "gpu"), ("onnx-cuda", "gpu"), ("onnx-tensorrt", "gpu"))


def measure(name: str, model: str, backend: str | Path, device: str, runs: int) -> dict[str, Any]:
    """Returns a backend's row: ``first_s``, ``backend`` and ``stages_ms``, or the ``reason`` of a failure."""
    jpeg, start = sample_jpeg(), time.perf_counter()
    try:
        with Segmenter.from_pretrained(
            model, backend=backend, device=device, classes=SAMPLE_WORDS
        ) as segmenter:
            segmenter.predict(jpeg)
            first = time.perf_counter() - start
            report = measure_latency(segmenter, jpeg, runs=runs)
    except PixelClipError as error:
        return {"name": name, "reason": str(error)}
    return {"name": name, "first_s": first, "backend": report.engine, "stages_ms": report.stages}


def main() -> int:
    """Run the command; return 1 if no backend runs."""
    parser = command_parser(__doc__, runs=100)
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument("--engines", type=Path, metavar="DIR", help=".plan files (default: the model's)")
    options = parser.parse_args()
    cases: list[tuple[str, str | Path, str]] = [(f"{b} {device}", b, device) for b, device in _ONNX_BACKENDS]
    if options.engines:
        plans = sorted(options.engines.glob("*.plan"))
        if not plans:
            parser.error(f"no engines (*.plan) in {options.engines}; make them with export/to_trt.py")
        cases += [(plan.name, plan, "gpu") for plan in plans]
    else:
        cases.append(("tensorrt gpu", "tensorrt", "gpu"))
    rows = [measure(name, options.model, backend, device, options.runs) for name, backend, device in cases]
    try:
        gpu = dataclasses.asdict(Cuda().gpu)
    except PixelClipError as error:
        gpu = {"missing": str(error)}
    content = {"model": Path(options.model).name, "environment": {"gpu": gpu}, "backends": rows}
    print(tables.backends(content))
    store(options.json, content)
    return 0 if any("stages_ms" in row for row in rows) else 1


if __name__ == "__main__":
    sys.exit(run_command("backends", main))
