"""Inference engines behind one interface, `base.Backend`; `choose.open_backend` picks and loads one.

A backend knows no image files and no words: it may import numpy, its engine (inside functions),
`pixelclip_sdk.{bundle,errors,manifest,support}` and other backends.
"""
