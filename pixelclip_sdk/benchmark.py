"""Latency of a loaded segmenter, stage by stage and end to end."""

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
"""20 household words, for timing."""

_PERCENTILES = (50, 90, 95, 99)
_STAGES = ("decode", "preprocess", "inference", "postprocess", "total")
_PACKAGES = ("pixelclip-sdk", "numpy", "pillow", "onnxruntime", "tokenizers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """Latencies in milliseconds.

    Attributes:
        model: The model's name.
        backend: What ran it.
        classes: Number of classes.
        image_size: Size `(H, W)` of the picture.
        runs: Measured frames, after the warm-up.
        stages: Stage → ``{"mean": …, "p50": …, "p90": …, "p95": …, "p99": …}``. ``total`` is end to end:
            from a JPEG's bytes to labels.
        fps: Frames a second at the median end to end.
        environment: See `environment`.
    """

    model: str
    backend: str
    classes: int
    image_size: tuple[int, int]
    runs: int
    stages: Mapping[str, Mapping[str, float]]
    fps: float
    environment: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """The report as text for people."""
        columns = ["mean", *(f"p{p}" for p in _PERCENTILES)]
        height, width = self.image_size
        lines = [
            f"{self.model}: {self.backend}, {self.classes} classes, {width}×{height}, {self.runs} frames",
            "",
            f"{'ms':<12}" + "".join(f"{column:>9}" for column in columns),
        ]
        for stage in _STAGES:
            lines.append(f"{stage:<12}" + "".join(f"{self.stages[stage][column]:9.1f}" for column in columns))
        lines += ["", f"{self.fps:.1f} frames a second end to end (JPEG bytes in, labels out; median)"]
        return "\n".join(lines)


def measure_latency(segmenter: Segmenter, jpeg: bytes, *, runs: int = 100, warmup: int = 10) -> LatencyReport:
    """Time `predict` on one picture, again and again.

    Args:
        segmenter: With its classes set.
        jpeg: The bytes of an image file; decoding them is part of every run.
        runs: Measured frames, at least 1.
        warmup: Frames before them that do not count.

    Raises:
        ImageError: The picture cannot be used.
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
        classes=len(segmenter.vocabulary),
        image_size=result.orig_shape,
        runs=runs,
        stages=stages,
        fps=1e3 / stages["total"]["p50"],
        environment=environment(),
    )


def environment() -> dict[str, Any]:
    """Machine and versions, for a report: numbers without them mean nothing."""
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
    """A JPEG with the statistics of a photo (1/f noise), the same on every machine.

    For timing only: it decodes like a photo of that size and shows nothing.
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
