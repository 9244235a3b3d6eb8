"""PixelCLIP, one file for each idea of the paper, with the paper's symbols.

No files, no configuration, no loop over steps: those are in `data`, `runs` and `train.py`.
"""
