"""Masks without labels: one module per source. A new source needs an entry in ``make_masks.SOURCES``."""
