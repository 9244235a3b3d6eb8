"""Measurements: how fast, how right. Results worth keeping are in `benchmarks/results/`."""

import pixelclip_sdk  # noqa: F401 - switches off the telemetry of onnxruntime, so it comes first
