"""Photos with masks, augmented and batched for a training run.

Making masks is in `masks`; labelled data sets are in `evaluation`.
"""
