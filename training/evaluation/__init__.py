"""Scoring: labelled data sets, evaluation protocols, and mIoU.

The command is `training/evaluate.py`.
"""
