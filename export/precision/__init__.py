"""ONNX graphs to fp16 or int8 arithmetic, and weights stored in fewer bits.

The shape of the graph is in `export/graph`.
"""
