"""Photos with masks, for the training. They are augmented and batched here."""
