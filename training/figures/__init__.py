"""Pictures of a training run, one file a kind; `training/pictures.py` puts them on a page."""
