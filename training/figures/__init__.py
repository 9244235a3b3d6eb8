"""Figures of a training run, drawn by matplotlib. The command is ``training/pictures.py``."""
