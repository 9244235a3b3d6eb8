"""Export PyTorch modules as ONNX graphs, with constant parts computed ahead of time for the input size."""
