"""Settings, checkpoints, log and errors of a training run.

The loop is in ``training/train.py``, the method in `training/method`.
"""
