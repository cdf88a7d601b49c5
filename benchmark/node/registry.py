"""Engines, scenarios and datasets by their names in a profile: each is a file of that name.

A provisioned engine is its declaration in `benchmark/provisioned/`.
"""

from __future__ import annotations

import importlib
from typing import Any

from benchmark.node.interfaces import Dataset, Engine, Scenario
from benchmark.profiles import Generation
from benchmark.provisioned import ENGINES
from benchmark.settings import Settings


def plain_engine(name: str, settings: Settings, generation: Generation, options: dict[str, Any]) -> Engine:
    """Return the engine of that name, for this process, not yet loaded."""
    if declared := ENGINES.get(name):
        from benchmark.node.provisioned import Engine as Provisioned

        return Provisioned(declared, settings, generation, options)
    engine: Engine = importlib.import_module(f"benchmark.node.engines.{name}").Engine(settings, generation, options)
    return engine


def make_scenario(name: str, options: dict[str, Any]) -> Scenario:
    """Return the scenario of that file name."""
    scenario: Scenario = importlib.import_module(f"benchmark.node.scenarios.{name}").Scenario(options)
    return scenario


def load_dataset(name: str, settings: Settings, options: dict[str, Any]) -> Dataset:
    """Return the dataset of that file name.

    Raises InputError for unknown options, SetupError if it is missing.
    """
    dataset: Dataset = importlib.import_module(f"benchmark.node.datasets.{name}").load(settings, options)
    return dataset
