"""What the benchmark commands share: timing in turns, storing results, models, the machine's description.

No file here is a command.
"""
