"""Measure the latency of a segmenter, per stage and end to end."""

import dataclasses
import importlib.metadata
import io
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelclip_sdk.segmenter import Segmenter

__all__ = ["SAMPLE_WORDS", "LatencyReport", "environment", "measure_latency", "sample_jpeg"]

SAMPLE_WORDS = (
    "person, cat, dog, chair, table, sofa, bed, cup, plate, bottle, book, plant, "
    "window, door, wall, floor, lamp, television, carpet, curtain"
)
"""20 household classes for measurements."""

_PERCENTILES = (50, 90, 95, 99)
_STAGES = ("decode", "preprocess", "inference", "postprocess", "total")
_PACKAGES = ("pixelclip-sdk", "numpy", "pillow", "onnxruntime", "tokenizers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """Latencies in milliseconds.

    Attributes:
        model: The model's name.
        backend: Name of the backend, e.g. ``"onnx"``.
        engine: Human-readable engine, device and thread count.
        classes: Number of classes.
        image_size: Size `(H, W)` of the image in pixels.
        runs: Measured frames, after the warm-up.
        stages: Stage → ``{"mean": …, "p50": …, "p90": …, "p95": …, "p99": …}``. ``total`` is end to end:
            from the bytes of a JPEG file to labels.
        fps: Frames per second at the median of ``total``.
        environment: Machine and package versions; see `environment`.
    """

    model: str
    backend: str
    engine: str
    classes: int
    image_size: tuple[int, int]
    runs: int
    stages: Mapping[str, Mapping[str, float]]
    fps: float
    environment: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the report as dicts, numbers and text."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """Return the report as a text table."""
        columns = ["mean", *(f"p{p}" for p in _PERCENTILES)]
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
    """Measure `predict` on one image repeatedly.

    Args:
        segmenter: A segmenter with classes.
        jpeg: The bytes of an image file; every run decodes them.
        runs: Measured frames, at least 1.
        warmup: Frames before the measurement.

    Raises:
        ValueError: `runs` is below 1.
        ImageError: The image cannot be used.
        VocabularyError: No classes are set.
    """
    if runs < 1:
        raise ValueError(f"runs is {runs}; expected at least 1")
    for _ in range(warmup):
        segmenter.predict(jpeg)
    samples: dict[str, list[float]] = {stage: [] for stage in _STAGES}
    for _ in range(runs):
        start = time.perf_counter()
        result = segmenter.predict(jpeg)
        total = (time.perf_counter() - start) * 1e3
        for stage in _STAGES[:-1]:
            samples[stage].append(result.speed[stage])
        samples["total"].append(total)
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
        channels = [
            Image.fromarray(noise[..., c].astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            for c in range(3)
        ]
        layers.append(np.stack([np.asarray(channel) for channel in channels], axis=-1))
    picture = np.clip(128 + 4 * np.sum(layers, axis=0), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
