"""The runs of a results directory: found by name, and what their cluster results say, indexed."""
