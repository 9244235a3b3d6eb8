"""Image and text encoders for training and export; `load.load_model` loads a model by its name.

The method that trains them is in `training/method`.
"""
