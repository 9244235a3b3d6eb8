"""Text and plots of docs/speed.md; `report.py` writes the page.

Its numbers are in `results/`.
"""
