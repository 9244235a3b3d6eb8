"""Words to embeddings: class lists and files, the text encoder, vocabularies; classes from features.

Nothing here runs an image encoder: the segmenter computes the features.
"""
