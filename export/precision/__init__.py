"""Precision of ONNX graphs: fp16 and int8 arithmetic, weights stored in fp16 and int8, calibration."""
