"""PixelCLIP: one module per idea of the paper, with the paper's symbols. Files and settings are elsewhere."""
