"""Weights → bundles: ONNX graphs with dynamic words, verified against their source."""
