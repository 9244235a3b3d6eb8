"""Weights to bundles, and bundles to TensorRT engines; each is compared with its source.

Encoders are in `training/models`; running a bundle is the SDK's work.
"""

import pixelclip_sdk  # noqa: F401 - before onnxruntime: it switches off onnxruntime's telemetry
