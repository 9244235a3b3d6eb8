"""Figures of a training run, drawn by matplotlib; the command is ``training/pictures.py``.

Nothing here trains or scores.
"""
