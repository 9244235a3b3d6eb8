"""A training run: its settings, its folder, its checkpoints, its log.

The loop itself is `training/train.py`; the method is in `method`.
"""
