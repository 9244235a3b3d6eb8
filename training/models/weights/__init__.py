"""Downloads checkpoint files, reads them safely and loads them into a model."""
