"""Measurements: how fast, how right. Results worth keeping are in `benchmarks/results/`."""
