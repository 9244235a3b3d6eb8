"""Words to embeddings: class lists and files, the text encoder, vocabularies. Nothing here reads pixels."""
