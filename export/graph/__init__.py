"""PyTorch modules to lean ONNX graphs: tracing, and folding what is constant at one input size.

Precision is in `export/precision`.
"""
