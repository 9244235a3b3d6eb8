"""Lower bounds of latency: what a graph computes and moves, operator by operator.

The command is `benchmarks/roofline.py`.
"""
