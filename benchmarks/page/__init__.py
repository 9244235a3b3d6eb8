"""Text and plots of docs/speed.md. Its numbers are in `results/`, and `report.py` writes it."""
