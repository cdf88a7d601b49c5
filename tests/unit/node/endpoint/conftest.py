"""A double of a server that misbehaves to order, and engines that ask it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.openai_server import OpenAIServer
from tests.unit.node.endpoint.asked import SIX, Known, Loaded


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


@pytest.fixture
def loaded() -> Iterator[Loaded]:
    """Return a function that makes and loads an engine; all are closed at the end."""
    with ExitStack() as stack:

        def load(*urls: str, generation: Generation = SIX, **settings: Any) -> Known:
            named = {"benchmark_endpoint_model": "served"}
            settings = {"benchmark_device": "cpu", "benchmark_endpoint_urls": list(urls), **named, **settings}
            engine = Known(Settings.model_validate(settings), generation, {})
            stack.callback(engine.close)
            engine.load()
            return engine

        yield load
