"""Datasets: one file each, holding a function `load`."""
