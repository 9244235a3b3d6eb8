"""Weight files: download, safe reading, and loading into a model.

Nothing here builds a model.
"""
