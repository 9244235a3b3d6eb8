"""Operations, bytes and lower bounds of an ONNX graph; the command is `benchmarks/roofline.py`."""
