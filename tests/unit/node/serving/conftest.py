"""The engine `endpoint` on doubles of servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchmark.profiles import Generation
from benchmark.settings import Settings
from tests.openai_server import OpenAIServer
from tests.unit.node.endpoint.asked import Known, Loaded

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer((LLAMA,)) as running:
        yield running


@pytest.fixture
def other() -> Iterator[OpenAIServer]:
    with OpenAIServer((LLAMA,)) as running:
        yield running


@pytest.fixture
def loaded() -> Iterator[Loaded]:
    """Return a function that makes and loads an engine; all are closed at the end."""
    with ExitStack() as stack:

        def load(*urls: str, generation: Generation | None = None, **settings: Any) -> Known:
            settings = {"benchmark_device": "cpu", "benchmark_endpoint_urls": list(urls), **settings}
            engine = Known(Settings.model_validate(settings), generation or Generation(max_new_tokens=4), {})
            stack.callback(engine.close)
            engine.load()
            return engine

        yield load
