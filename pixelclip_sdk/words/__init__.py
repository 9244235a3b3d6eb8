"""Words to embeddings: class lists, the text encoder, vocabularies, and the resolver that joins them.

Nothing here touches pixels.
"""
