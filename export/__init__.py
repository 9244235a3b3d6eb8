"""Weights → bundles: ONNX graphs with dynamic words, verified against their source."""

import pixelclip_sdk  # noqa: F401 - switches off the telemetry of onnxruntime, so it comes first
