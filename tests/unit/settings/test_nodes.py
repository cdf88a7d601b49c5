from typing import Any

import pytest

from benchmark.resolve import resolve
from benchmark.settings import Settings
from benchmark.settings.nodes import needed_nodes


@pytest.mark.parametrize(
    ("given", "kept"), [(2, 2), ("2", 2), ("80%", "80%"), (" 80 % ", "80%"), ("0.5%", "0.5%"), ("100%", "100%")]
)
def test_how_many_nodes_are_enough_is_a_number_or_a_percentage(given: Any, kept: Any) -> None:
    settings = resolve({"benchmark_min_nodes": given}).settings
    assert settings.benchmark_min_nodes == kept
    assert type(settings.benchmark_min_nodes) is type(kept)
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("min_nodes", "asked", "needed"),
    [
        ("100%", 7, 7),
        ("50%", 7, 4),
        ("50%", 2, 1),
        ("1%", 3, 1),
        ("0.1%", 2000, 2),
        (3, 7, 3),
        ("14%", 50, 7),
    ],
)
def test_a_percentage_of_nodes_is_rounded_up(min_nodes: Any, asked: int, needed: int) -> None:
    assert needed_nodes(min_nodes, asked) == needed
