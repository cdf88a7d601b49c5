"""A server that the run starts, which says for a while, here or there, that it is still loading."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import SetupError
from benchmark.node.engines.endpoint import Engine
from benchmark.node.serving.client import Client
from benchmark.node.serving.process import ServerProcess
from benchmark.node.serving.readiness import wait_until_ready
from benchmark.settings import Settings
from tests.raw_server import Asked, RawServer, models, polite
from tests.unit.node.endpoint.asked import SIX, TEXT, ask

CHECKOUT = Path(__file__).parents[4]
LOADING = b'{"error": {"message": "Loading model", "code": 503}}'
# Oftener than anything is asked once more by itself.
LATE = 4

Wait = Callable[..., RawServer]


@pytest.fixture
def wait(tmp_path: Path) -> Iterator[Wait]:
    """Return a function that waits for a server which answers a route `late` times with a fault."""
    process = ServerProcess("echo loading; exec sleep 600", tmp_path)

    def wait(route: str, fault: str, late: int, **more: Any) -> RawServer:
        left = late

        async def handle(asked: Asked) -> None:
            nonlocal left
            if route not in asked.route or left == 0:
                await polite(asked)
                return
            left -= 1
            if fault == "reset":
                asked.reset()
            elif fault == "empty":
                asked.send(models())
            elif fault == "html":
                asked.send(b"<html>starting</html>")
            else:
                asked.send(LOADING, f"{fault} Not yet")

        settings = Settings.model_validate({"benchmark_endpoint_start": "x", "benchmark_model": "org/served", **more})
        with RawServer(handle) as server:
            client = Client([server.url], None, 60, lambda: None)
            try:
                wait_until_ready(client, process, settings, SIX)
            finally:
                client.close()
        return server

    yield wait
    process.stop()


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        ("/health", "503"),
        ("/health", "404"),
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
def test_the_start_timeout_covers_readiness_whole(route: str, fault: str, wait: Wait) -> None:
    server = wait(route, fault, LATE)
    assert sum(route in asked.route for asked in server.asked) > LATE
    assert "/chat/completions" in server.asked[-1].route


@pytest.mark.parametrize(
    ("route", "fault", "said"),
    [
        ("/v1/models", "503", r"/v1/models: HTTP 503: Loading model "),
        ("/v1/models", "empty", r"/v1/models lists no models\. "),
        ("/chat/completions", "503", r"/v1/chat/completions: HTTP 503: Loading model "),
    ],
)
def test_the_route_that_was_not_ready_is_named(route: str, fault: str, said: str, wait: Wait) -> None:
    late = rf"benchmark_endpoint_start_timeout_s = 1 s: http://127.0.0.1:\d+{said}The end of endpoint.log: loading"
    with pytest.raises(SetupError, match=late):
        wait(route, fault, 1000, benchmark_endpoint_start_timeout_s=1)


@pytest.mark.parametrize(
    ("route", "fault", "named"),
    [
        ("/v1/models", "404", "served"),
        ("/v1/models", "empty", "served"),
        ("/v1/models", "401", ""),  # a key does not become right
        ("/chat/completions", "404", ""),
        ("/chat/completions", "400", ""),
    ],
)
def test_what_does_not_change_with_time_is_not_waited_for(route: str, fault: str, named: str, wait: Wait) -> None:
    server = wait(route, fault, 1000, benchmark_endpoint_model=named)
    assert sum(route in asked.route for asked in server.asked) == 1


def test_a_server_that_ends_while_it_is_waited_for_is_reported(tmp_path: Path) -> None:
    process = ServerProcess("echo no memory; exit 7", tmp_path)
    client = Client(["http://127.0.0.1:1"], None, 60, lambda: None)
    try:
        with pytest.raises(SetupError, match=r"ended with exit code 7\. The end of endpoint\.log: no memory"):
            wait_until_ready(client, process, Settings(), SIX)
    finally:
        client.close()
        process.stop()


def test_the_engine_waits_for_the_server_that_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "directory", tmp_path)
    (tmp_path / "server.py").write_text(
        f"import asyncio, sys\nsys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from tests.raw_server import RawServer, polite\n"
        "asked = 0\n"
        "async def handle(one):\n"
        "    global asked\n"
        "    asked += '/models' in one.route\n"
        "    status = '200 OK' if '/health' in one.route else '503 No'\n"
        f"    await polite(one) if asked > {LATE} else one.send({LOADING!r}, status)\n"
        "with RawServer(handle, port=int(sys.argv[1])): asyncio.run(asyncio.sleep(600))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings = {
        "benchmark_device": "cpu",
        "benchmark_endpoint_urls": [f"http://127.0.0.1:{port}"],
        "benchmark_endpoint_start": f"{sys.executable} {tmp_path}/server.py {port}",
        "benchmark_endpoint_start_timeout_s": 120,
        "benchmark_endpoint_api": "chat",
        "benchmark_endpoint_model": "served",
    }
    engine = Engine(Settings.model_validate(settings), SIX, {})
    try:
        engine.load()
        assert not ask(engine, TEXT).errors
    finally:
        engine.close()
