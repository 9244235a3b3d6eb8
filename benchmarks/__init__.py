"""Commands that measure speed, memory and accuracy. Tests of correctness are in `tests/`."""

import pixelclip_sdk  # noqa: F401 - switches off the telemetry of onnxruntime, so it comes first
