"""Tables, targets and plots of docs/speed.md.

The command is `benchmarks/report.py`.
"""
