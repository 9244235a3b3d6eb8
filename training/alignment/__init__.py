"""Alignment of pixelclip-lite with photos that have words: the words, the cells they belong to, the new map.

The closed form without photos is in `models/lite/alignment.py`.
"""
