"""Small helpers that the SDK and the other folders share: files, images, signals, arguments, hints, clock.

Nothing here knows of models, words or segmentation.
"""
