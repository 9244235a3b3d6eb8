"""Words to embeddings: class lists and files, the text encoder, vocabularies and their resolver.

Nothing here reads pixels.
"""
