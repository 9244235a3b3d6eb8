"""Masks without labels: one file for each source of masks, and the file format that holds them.

A new source is a class with `source.MaskSource`'s methods, registered in `make_masks.py`.
"""
