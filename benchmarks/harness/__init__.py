"""Shared parts of the benchmark commands: timing, results, tables, models, the machine's rates."""
