"""`python3 -m benchmark`."""

from benchmark.cli import entry

entry()
