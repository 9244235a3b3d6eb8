"""Targets and plots of docs/speed.md; the command is `benchmarks/report.py`."""
