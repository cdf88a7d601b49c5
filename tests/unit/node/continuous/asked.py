"""Queries that the engine continuous is asked in tests, and how it is asked."""

from __future__ import annotations

from collections.abc import Callable

from benchmark.node.engines import continuous
from benchmark.node.interfaces import Prompt, Query
from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from tests.unit.node.heard import Heard

GREEDY = Generation(max_new_tokens=8, min_new_tokens=8)
ENDLESS = Generation(max_new_tokens=1500, min_new_tokens=1500)
# Of unlike lengths, so that one is being read while another already answers.
QUERIES = [
    Query(index=i, prompt=Prompt(id=f"p{i}", text=f"Explain the number {i}. " + "Why? " * (i * 5 % 37)), seed=i)
    for i in range(16)
]

Make = Callable[..., tuple[continuous.Engine, EngineInfo]]


def ask(engine: continuous.Engine, queries: list[Query]) -> Heard:
    """Ask all at once; return what was heard once all are answered."""
    heard = Heard()
    for query in queries:
        engine.submit(query, heard)
    heard.wait(len(queries))
    return heard
