"""Inference engines behind one interface, `base.Backend`: ONNX Runtime, TensorRT, and a fake one for tests.

A backend turns pixels and word embeddings into logits. It knows no image files and no words.
"""
