"""Evaluation on labelled data sets: mIoU of a PyTorch model or a bundle.

`layouts` has the file layout and label ids of each data set (Cityscapes and the others), `datasets` loads
them, `protocols` turns a photo into labels, `metrics` computes the score. The command is
`training/evaluate.py`.
"""
