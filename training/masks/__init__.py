"""Masks without labels: made from anything, kept in one file a photo."""
