"""`python3 -m benchmark tiny-model`: make a tiny model for trying the benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.errors import EXIT_VALID
from benchmark.node.model.tiny import make_tiny_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `tiny-model`."""
    parser.add_argument("directory", type=Path, help="where the model goes; must not exist yet")


def main(arguments: argparse.Namespace) -> int:
    """Make the model and print its directory."""
    make_tiny_model(arguments.directory)
    print(f"The tiny model is in {arguments.directory}")
    return EXIT_VALID
