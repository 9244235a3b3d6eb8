"""Attacks: damaged files of every kind that is read, soaks, killed writers, runs without a network.

`make fuzz` and `make soak` run the commands `fuzz`, `soak`, `kill` and `isolated`; `tests/benchmarks/attack`
runs a small part of them with every commit. `seeds` makes whole files, `mutate` damages them, `targets` reads
them, and `child` is the process with limits in which that happens.
"""
