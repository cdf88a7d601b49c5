"""Queries that fail, and servers that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from benchmark.node.interfaces import Answer, EngineBroken, Query
from benchmark.node.serving.client import Client, Request
from tests import openai_server
from tests.openai_server import DONE, Cut, OpenAIServer, Refusal, event, finish, parts, token, usage
from tests.unit.node.endpoint.asked import TEXT, Heard, Loaded, ask

FAULTS: dict[str, tuple[openai_server.Answer, str]] = {
    "500": (parts(Refusal(500, "x" * 5000)), "HTTP 500: " + "x" * 300),
    "429": (parts(Refusal(429, '{"error": {"message": "slow down"}}')), "HTTP 429: slow down"),
    "422": (parts(Refusal(422, '{"detail": "no"}')), "HTTP 422: no"),
    "cut": (parts(lambda r: token(r, "a"), Cut()), "The connection to http://127.0.0.1:"),
    "no end": (parts(lambda r: token(r, "a"), usage(1)), "The stream ended too early"),
    "no counts": (parts(lambda r: token(r, "a"), finish, DONE), "neither token ids nor usage"),
    "no json": (parts(lambda r: token(r, "a"), b"data: {oops\n\n", DONE), "streamed invalid JSON: {oops"),
    "error": (
        parts(lambda r: token(r, "a"), event({"error": {"message": "out of memory", "code": 500}}), DONE),
        "broke off with an error: out of memory",
    ),
    "abort": (parts(lambda r: finish(r, "abort"), usage(1), DONE), "finish_reason is abort"),
    "no stream": (parts(b'{"choices": []}'), "did not stream, but answered: {'choices': []}"),
    "html": (
        parts(b"<html><title>Sign in</title><body>Your session ended</body></html>"),
        "Sign in: Your session ended",
    ),
    "nothing": (parts(b": nothing\n\n"), "answered with nothing at all"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_query_and_is_not_tried_again(fault: str, server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    asked = len(server.seen)
    server.answer, said = FAULTS[fault]
    heard = ask(engine)
    assert said in heard.errors[0]
    assert len(heard.errors[0]) < 500
    assert len(server.seen) == asked + 1
    server.answer = openai_server.whole
    assert ask(engine).answers[0][1].output_tokens == 6, "the next query is answered"


def test_a_query_that_takes_too_long_fails() -> None:
    async def never(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield token(request, "a")
        await asyncio.sleep(3600)

    with OpenAIServer() as server:
        server.answer = never
        client = Client([server.url], None, 0.3, lambda: None)
        heard = Heard()
        client.submit(TEXT, heard, Request("/v1/completions", {}))
        heard.wait()
        client.close()
    assert "no complete answer within 0.3 s (benchmark_endpoint_query_timeout_s)" in heard.errors[0]


def test_a_dead_server_is_given_no_more_queries(server: OpenAIServer, loaded: Loaded) -> None:
    with OpenAIServer() as dying:
        engine = loaded(dying.url, server.url)
        dying.stop()
        failed = [error for _ in range(8) for error in ask(engine).errors.values()]
        assert len(failed) == 3
        assert all(f"{dying.url} cannot be reached" in error for error in failed)
        server.stop()
        assert [len(ask(engine).errors) for _ in range(3)] == [1, 1, 1]
        with pytest.raises(EngineBroken, match="No server can be reached any more"):
            engine.submit(TEXT, Heard())


def test_queries_in_flight_fail_when_the_servers_have_ended() -> None:
    async def never(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield token(request, "a")
        await asyncio.sleep(3600)

    ended: list[str] = []
    with OpenAIServer() as server:
        server.answer = never
        client = Client([server.url], None, 300, lambda: ended[0] if ended else None)
        heard = Heard()
        client.submit(TEXT, heard, Request("/v1/completions", {}))
        assert heard.first_came.wait(60)
        ended.append("The server is gone.")
        heard.wait()
        assert heard.errors == {0: "The server is gone."}
        with pytest.raises(EngineBroken, match="gone"):
            client.submit(TEXT, heard, Request("/v1/completions", {}))
        client.close()


def test_a_listener_that_raises_fails_the_query(server: OpenAIServer, loaded: Loaded) -> None:
    class Broken(Heard):
        def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
            raise ValueError("no room")

    engine = loaded(server.url)
    heard = Broken()
    engine.submit(TEXT, heard)
    heard.wait()
    assert heard.errors == {0: "ValueError: no room"}
