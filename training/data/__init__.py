"""Photos with masks, augmented and batched for the training."""
