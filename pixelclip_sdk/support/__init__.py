"""Small helpers that the SDK and the other folders share: files, images, commands, signals, arguments, hints.

Nothing here depends on models, vocabularies or segmentation.
"""
