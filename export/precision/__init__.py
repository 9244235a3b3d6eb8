"""Convert ONNX graphs to fp16 or int8 arithmetic. Store weights in fewer bits."""
