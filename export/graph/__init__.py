"""Export PyTorch modules as ONNX graphs. Everything that is constant at an input size is computed ahead."""
