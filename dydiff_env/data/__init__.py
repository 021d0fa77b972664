"""Datasets: reading, writing, collecting, and the windows that models learn from."""
