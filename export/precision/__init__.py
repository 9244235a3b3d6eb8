"""Precision of ONNX graphs: storage in fp16 and int8, fp16 arithmetic, int8 quantisation, calibration.

The shape of the graph is in `export/graph`.
"""
