"""A server that the run starts, which says for a while, here or there, that it is still loading."""

from __future__ import annotations

import socket
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import SetupError
from benchmark.node.engines.endpoint import Engine
from benchmark.settings import Settings
from tests.unit.node.test_endpoint import SIX, TEXT, ask

CHECKOUT = Path(__file__).parents[4]

# A server that answers each route `late` so many times with its `fault` before it is ready. argv: port, route, fault, late.
SERVER = """
    import asyncio, sys
    sys.path.insert(0, {checkout!r})
    from tests.raw_server import RawServer, models, polite
    port, route, fault, late = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    asked = 0

    async def handle(one):
        global asked
        if route in one.route and asked < late:
            asked += 1
            if fault == "reset":
                one.reset()
            elif fault == "empty":
                one.send(models())
            elif fault == "html":
                one.send(b"<html>starting</html>")
            else:
                one.send(b'{{"error": {{"message": "Loading model", "code": 503}}}}', fault + " Not yet")
        else:
            await polite(one)

    with RawServer(handle, port=port):
        asyncio.run(asyncio.sleep(600))
"""

Started = Callable[..., Engine]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    """Return a function that loads an engine which starts such a server; all are closed at the end."""
    monkeypatch.setattr(Engine, "directory", tmp_path)
    (tmp_path / "server.py").write_text(textwrap.dedent(SERVER).format(checkout=str(CHECKOUT)))
    with ExitStack() as stack:

        def load(route: str, fault: str, late: int, **more: Any) -> Engine:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = taken.getsockname()[1]
            settings = {
                "benchmark_device": "cpu",
                "benchmark_endpoint_urls": [f"http://127.0.0.1:{port}"],
                "benchmark_endpoint_start": f"{sys.executable} {tmp_path}/server.py {port} {route} {fault} {late}",
                "benchmark_endpoint_start_timeout_s": 120,
                "benchmark_model": "org/served",
                **more,
            }
            engine = Engine(Settings.model_validate(settings), SIX.model_copy(update={"min_new_tokens": 0}), {})
            stack.callback(engine.close)
            engine.load()
            return engine

        yield load


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("/health", "503"),
        ("/v1/models", "503"),
        ("/v1/models", "404"),
        ("/v1/models", "empty"),
        ("/v1/models", "html"),
        ("/v1/models", "reset"),
        ("/chat/completions", "503"),
        ("/chat/completions", "502"),
        ("/chat/completions", "reset"),
    ],
)
def test_the_start_timeout_covers_readiness_whole(route: str, fault: str, started: Started) -> None:
    # More often than anything is tried again by itself.
    engine = started(route, fault, 5, benchmark_endpoint_api="chat")
    assert not ask(engine, TEXT).errors


@pytest.mark.parametrize(
    ("route", "fault", "said"),
    [
        ("/v1/models", "503", r"/v1/models: HTTP 503: Loading model "),
        ("/v1/models", "empty", r"/v1/models lists no model\. "),
        ("/chat/completions", "503", r"/v1/chat/completions: HTTP 503: Loading model "),
    ],
)
def test_the_route_that_was_not_ready_is_named(route: str, fault: str, said: str, started: Started) -> None:
    with pytest.raises(SetupError, match=rf"benchmark_endpoint_start_timeout_s = 3 s: http://127.0.0.1:\d+{said}"):
        started(route, fault, 1000, benchmark_endpoint_start_timeout_s=3)


def test_a_server_without_a_list_is_ready_where_its_model_is_named(started: Started) -> None:
    engine = started("/v1/models", "404", 1000, benchmark_endpoint_model="served", benchmark_endpoint_api="chat")
    assert not ask(engine, TEXT).errors


def test_a_key_that_is_refused_is_not_waited_for(started: Started) -> None:
    with pytest.raises(SetupError, match=r"/v1/models: HTTP 401"):
        started("/v1/models", "401", 1000)
