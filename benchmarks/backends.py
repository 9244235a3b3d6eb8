"""Latency of one model in every backend that runs here, side by side: ``python benchmarks/backends.py``.

Backends that do not run are listed with the reason. Each is measured end to end, from a JPEG's bytes to
labels, and so is what a person waits for once: loading, with the first picture.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.stored import store
from pixelclip_sdk import PixelClipError, Segmenter
from pixelclip_sdk.backends.cuda import Cuda
from pixelclip_sdk.benchmark import SAMPLE_WORDS, LatencyReport, environment, measure_latency, sample_jpeg
from pixelclip_sdk.support.arguments import positive
from pixelclip_sdk.support.command import run_command

ONNX_BACKENDS = (("onnx", "cpu"), ("onnx", "gpu"), ("onnx-cuda", "gpu"), ("onnx-tensorrt", "gpu"))


@dataclasses.dataclass(frozen=True)
class Row:
    """A backend's latency, or why there is none.

    Attributes:
        name: Backend and device, or the engine's file name.
        first_s: Seconds from nothing to the first result.
        report: Latencies; None if it does not run.
        reason: Why it does not.
    """

    name: str
    first_s: float = 0.0
    report: LatencyReport | None = None
    reason: str = ""


def measure(name: str, model: str, backend: str | Path, device: str, runs: int) -> Row:
    """Measure one backend."""
    jpeg = sample_jpeg()
    start = time.perf_counter()
    try:
        with Segmenter.from_pretrained(
            model, backend=backend, device=device, classes=SAMPLE_WORDS
        ) as segmenter:
            segmenter.predict(jpeg)
            first = time.perf_counter() - start
            return Row(name, first, measure_latency(segmenter, jpeg, runs=runs))
    except PixelClipError as error:
        return Row(name, reason=str(error))


def table(rows: list[Row]) -> str:
    """The rows as text; ratios are to the first backend that ran."""
    ran = [row for row in rows if row.report is not None]
    columns = f"{'first s':>9}{'inference p50':>15}{'p95':>9}{'total p50':>12}{'p95':>9}{'speed-up':>10}"
    lines = [f"{'backend':<56}{columns}"]
    for row in ran:
        assert row.report is not None
        assert ran[0].report is not None
        inference, total = row.report.stages["inference"], row.report.stages["total"]
        ratio = ran[0].report.stages["total"]["p50"] / total["p50"]
        lines.append(
            f"{row.name:<56}{row.first_s:9.2f}{inference['p50']:15.2f}{inference['p95']:9.2f}"
            f"{total['p50']:12.2f}{total['p95']:9.2f}{ratio:9.1f}×"
        )
    lines += [f"{row.name}: not measured: {row.reason}" for row in rows if row.report is None]
    return "\n".join(lines)


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="pixelclip-lite", help="name or folder (default: %(default)s)")
    parser.add_argument(
        "--engines", type=Path, metavar="DIR", help="folder of .plan files (default: the model's)"
    )
    parser.add_argument("--runs", type=positive, default=100, help="measured frames (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    cases: list[tuple[str, str | Path, str]] = [(f"{b} {device}", b, device) for b, device in ONNX_BACKENDS]
    if options.engines:
        plans = sorted(options.engines.glob("*.plan"))
        if not plans:
            parser.error(f"no engines (*.plan) in {options.engines}; export/to_trt.py makes them")
        cases += [(plan.name, plan, "gpu") for plan in plans]
    else:
        cases.append(("tensorrt gpu", "tensorrt", "gpu"))
    rows = [measure(name, options.model, backend, device, options.runs) for name, backend, device in cases]
    print(table(rows))
    if options.json:
        store(options.json, _to_json(options.model, rows))
    return 0 if any(row.report for row in rows) else 1


def _to_json(model: str, rows: list[Row]) -> dict[str, Any]:
    try:
        gpu = dataclasses.asdict(Cuda().gpu)
    except PixelClipError as error:
        gpu = {"missing": str(error)}
    return {
        "model": Path(model).name,
        "environment": environment() | {"gpu": gpu},
        "backends": [
            {"name": row.name, "reason": row.reason}
            if row.report is None
            else {
                "name": row.name,
                "first_s": row.first_s,
                "backend": row.report.backend,
                "stages_ms": row.report.stages,
            }
            for row in rows
        ],
    }


if __name__ == "__main__":
    sys.exit(run_command("backends", main))
