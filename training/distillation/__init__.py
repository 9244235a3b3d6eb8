"""Distillation: a small image tower learns a teacher's dense features. `training/distil.py` runs it.

The towers themselves are in `training/models/student.py`.
"""
