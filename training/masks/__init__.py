"""Masks without labels: one module per source, and the file format.

A new source needs an entry in ``make_masks.SOURCES``; labelled data sets are in `evaluation`.
"""
