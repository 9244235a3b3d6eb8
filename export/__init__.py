"""Weights → bundles: ONNX graphs that take any words, verified against their PyTorch source."""

import pixelclip_sdk  # noqa: F401 - before onnxruntime: it switches off onnxruntime's telemetry
