"""Image and text encoders for training and export.

`load.load_model` loads a model by a name from `registry`. `clip/` and `lite/` hold the networks; `weights/`
downloads and reads checkpoint files; `runtime` runs a PyTorch model with the SDK's pre- and postprocessing.
"""
