"""PyTorch modules to ONNX graphs; everything that is constant at an input size is computed ahead.

Precision is in `export/precision`.
"""
