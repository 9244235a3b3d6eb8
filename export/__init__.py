"""Export models as bundles and compile bundles for TensorRT. Each is compared with its PyTorch source."""

import pixelclip_sdk  # noqa: F401 - before onnxruntime: it switches off onnxruntime's telemetry
