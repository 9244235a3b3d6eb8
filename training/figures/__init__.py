"""Figures of a training run, one file a kind; the command is `training/pictures.py`.

Nothing here trains or scores.
"""
