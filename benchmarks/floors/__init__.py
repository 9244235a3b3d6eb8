"""Operations, bytes and operator times of ONNX graphs. Rates of the machine are in `harness/machine.py`."""
