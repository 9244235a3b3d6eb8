"""Weight files: download, safe reading, and fitting state dicts to a model.

Nothing here builds a model.
"""
