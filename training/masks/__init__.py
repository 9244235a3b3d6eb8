"""Masks without labels: the file format and one module per source of masks.

A new source is a class with the methods of `source.MaskSource` and an entry in ``make_masks.SOURCES``.
"""
