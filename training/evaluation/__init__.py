"""Evaluation on labelled data sets: mIoU of a PyTorch model or a bundle. The command is `training/evaluate.py`."""
