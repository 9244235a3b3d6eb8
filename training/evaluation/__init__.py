"""Evaluation on labelled data sets: mIoU of a PyTorch model or a bundle. `evaluate.py` is the command."""
