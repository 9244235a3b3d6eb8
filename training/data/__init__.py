"""Photos with masks, as a training run reads them, and their augmentation.

Making masks is in `masks`; labelled data sets are in `evaluation`.
"""
