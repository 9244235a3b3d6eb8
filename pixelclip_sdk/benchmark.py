"""Measure the latency of a segmenter, per stage and end to end."""

import contextlib
import dataclasses
import importlib.metadata
import io
import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelclip_sdk.segmenter import Segmenter

SAMPLE_WORDS = (
    "person, cat, dog, chair, table, sofa, bed, cup, plate, bottle, book, plant, "
    "window, door, wall, floor, lamp, television, carpet, curtain"
)
"""20 household classes for measurements."""

_PERCENTILES = (50, 90, 95, 99)
_STAGES = ("decode", "preprocess", "inference", "refine", "postprocess", "total")
_PACKAGES = ("pixelclip-sdk", "numpy", "pillow", "onnxruntime", "tokenizers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """Latencies in milliseconds."""

    model: str
    backend: str  # For example "onnx".
    engine: str  # Human-readable engine, device and thread count.
    classes: int  # Number of classes.
    image_size: tuple[int, int]  # (H, W)
    runs: int  # Measured frames, after the warm-up.
    # Stage → {"mean": …, "p50": …, "p90": …, "p95": …, "p99": …}. "total" is from a JPEG's bytes to labels.
    stages: Mapping[str, Mapping[str, float]]
    fps: float  # At the median of "total".
    environment: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as dicts, numbers and text."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """Return the report as a text table."""
        columns = list(self.stages["total"])
        height, width = self.image_size
        lines = [
            f"{self.model}: {self.engine}, {self.classes} classes, {width}×{height}, {self.runs} frames",
            "",
            f"{'ms':<12}" + "".join(f"{column:>9}" for column in columns),
        ]
        for stage in _STAGES:
            lines.append(f"{stage:<12}" + "".join(f"{self.stages[stage][column]:9.1f}" for column in columns))
        lines += ["", f"{self.fps:.1f} frames a second end to end (JPEG bytes in, labels out; median)"]
        return "\n".join(lines)


def measure_latency(segmenter: Segmenter, jpeg: bytes, *, runs: int = 100, warmup: int = 10) -> LatencyReport:
    """Measure `predict` on one image file, `runs` times after `warmup` frames. Every run decodes the file."""
    for _ in range(warmup):
        segmenter.predict(jpeg)
    samples: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    for _ in range(runs):
        start = time.perf_counter()
        result = segmenter.predict(jpeg)
        speed = {**result.speed, "total": (time.perf_counter() - start) * 1e3}
        for stage, values in samples.items():
            values.append(speed[stage])
    stages = {
        stage: {"mean": float(np.mean(values))}
        | {f"p{p}": float(np.percentile(values, p)) for p in _PERCENTILES}
        for stage, values in samples.items()
    }
    return LatencyReport(
        model=segmenter.bundle.name if segmenter.bundle else "no bundle",
        backend=segmenter.backend,
        engine=segmenter.engine_description,
        classes=len(segmenter.vocabulary),
        image_size=result.orig_shape,
        runs=runs,
        stages=stages,
        fps=1e3 / stages["total"]["p50"],
        environment=environment(),
    )


def environment() -> dict[str, Any]:
    """Return the machine and the versions of packages, for reports."""
    packages = {}
    for package in _PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = "not installed"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": usable,
        "packages": packages,
    }


def sample_jpeg(height: int = 480, width: int = 640) -> bytes:
    """Make a JPEG with the statistics of a photo (1/f noise), the same on every machine.

    It decodes as slowly as a photo of that size. It shows nothing.
    """
    rng = np.random.default_rng(0)
    layers = []
    for step in (64, 32, 16, 8, 4, 2):
        noise = rng.uniform(-1, 1, (height // step + 2, width // step + 2, 3)) * step**0.7
        channels = [Image.fromarray(channel) for channel in noise.astype(np.float32).transpose(2, 0, 1)]
        layers.append([channel.resize((width, height), Image.Resampling.BICUBIC) for channel in channels])
    planes = np.sum([np.stack([np.asarray(plane) for plane in layer]) for layer in layers], axis=0)
    image = np.clip(128 + 4 * planes, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or "unknown"
