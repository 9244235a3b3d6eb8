"""Functions that annotation tools call (docs/annotation.md).

What they make of a result is in `pixelclip_sdk.results.annotation`.
Label Studio asks a server: its routes are `pixelclip_sdk.serve.label_studio`.
"""
