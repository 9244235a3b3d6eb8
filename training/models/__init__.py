"""Encoders that can be trained and exported: one registry of names, one way to load them.

`clip/` and `lite/` are the two families; `weights/` finds, downloads and reads checkpoint files.
"""
