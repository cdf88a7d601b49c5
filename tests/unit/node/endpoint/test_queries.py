"""What goes out, what comes back, and what is counted, against a double; test_real.py has a real server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from benchmark.errors import InputError
from benchmark.node.interfaces import Query, now_ns
from benchmark.node.measuring import unanswered_words
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.recorder import Recorder
from benchmark.profiles import Generation
from benchmark.secret_settings import Secrets
from tests import openai_server
from tests.openai_server import DONE, OpenAIServer, Refusal, event, finish, parts, token, usage
from tests.unit.node.endpoint.asked import IDS, SIX, TEXT, Heard, Known, Loaded, ask, plain


def test_ids_go_out_and_come_back(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    heard = ask(engine, IDS)
    assert plain(heard) == (3, 6, (5, 6, 7, 8, 9, 10), "5 6 7 8 9 10 ")
    sent = server.seen[-1]
    assert sent["route"] == "/v1/completions"
    assert sent["prompt"] == [11, 12, 13]
    assert (sent["temperature"], sent["seed"], sent["max_tokens"], sent["min_tokens"]) == (0.7, 5, 6, 6)
    assert (sent["ignore_eos"], sent["top_k"], sent["top_p"], sent["min_p"]) == (True, -1, 1.0, 0.0)


def test_text_goes_through_the_servers_chat_template(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    heard = ask(engine)
    assert plain(heard) == (7, 6, (5, 6, 7, 8, 9, 10), "5 6 7 8 9 10 ")
    assert server.seen[-1]["route"] == "/v1/chat/completions"
    assert server.seen[-1]["messages"] == [{"role": "user", "content": "Explain photosynthesis."}]


def test_a_greedy_query_is_sent_without_temperature(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    ask(engine, Query(index=0, prompt=TEXT.prompt, seed=5, greedy=True))
    assert server.seen[-1]["temperature"] == 0


def test_what_was_found_is_in_the_result(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url + "/v1/", benchmark_model="org/other")
    assert engine.info.details == {
        "urls": [server.url],
        "api": "auto",
        "client": f"aiohttp {aiohttp.__version__}",
        "model": "served",
        "models": ["served"],
        "not_listed_by": [],
        "reported": {},
        "server": engine.info.details["server"],
        "version": "1.2.3",
        "counting": {"completions": "token ids", "chat": "token ids"},
        "refused_fields": {"completions": [], "chat": []},
        "unusable": {},
    }
    assert "aiohttp" in str(engine.info.details["server"])


def test_a_server_that_refuses_fields_is_asked_without_them(server: OpenAIServer, loaded: Loaded) -> None:
    server.rejects = {"return_token_ids", "ignore_eos"}
    engine = loaded(server.url)
    both = ["ignore_eos", "return_token_ids"]
    assert engine.info.details["refused_fields"] == {"completions": both, "chat": both}
    assert engine.info.details["counting"] == {"completions": "usage", "chat": "usage"}
    heard = ask(engine, IDS)
    assert plain(heard) == (3, 6, (), "5 6 7 8 9 10 ")
    assert not server.rejects & set(server.seen[-1])
    assert server.seen[-1]["min_tokens"] == 6


def test_a_field_that_the_profile_needs_cannot_be_left_out(server: OpenAIServer, loaded: Loaded) -> None:
    server.rejects = {"top_k"}
    with pytest.raises(InputError, match="asks for top_k = 5, which /v1/completions does not accept"):
        loaded(server.url, generation=SIX.model_copy(update={"top_k": 5}))


def test_a_missing_route_fails_the_queries_that_need_it(server: OpenAIServer, loaded: Loaded) -> None:
    server.rejects = {"prompt"}
    engine = loaded(server.url)
    assert "/v1/completions cannot be used: " in ask(engine, IDS).errors[0]
    assert ask(engine, TEXT).answers[0][1].output_tokens == 6


def test_text_becomes_ids_where_completions_are_asked_for(server: OpenAIServer, loaded: Loaded, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "m")
    engine = loaded(server.url, benchmark_endpoint_api="completions", benchmark_model=str(tmp_path / "m"))
    heard = ask(engine)
    assert heard.answers[0][1].input_tokens == len(server.seen[-1]["prompt"]) > 10


def test_chunks_of_several_tokens_and_empty_ones_change_no_count(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    server.answer = parts(
        lambda request: token(request, ""),
        lambda request: token(request, "one two", token_ids=[1, 2]),
        lambda request: token(request, "", token_ids=[3]),
        lambda request: token(request, ""),
        b": a comment\n\n",
        lambda request: token(request, " four", token_ids=[4, 5, 6]),
        finish,
        usage(6),
        DONE,
    )
    for query in (IDS, TEXT):
        assert ask(engine, query).answers[0][1].token_ids == (1, 2, 3, 4, 5, 6)


def test_a_shorter_answer_is_recorded_as_it_is(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    server.answer = parts(lambda request: token(request, "Yes."), finish, usage(2), DONE)
    assert plain(ask(engine)) == (7, 2, (), "Yes.")


def test_the_first_token_is_the_first_text(server: OpenAIServer, loaded: Loaded) -> None:
    """The server waits for the client's word before it goes on, so that the order is certain and no clock decides."""
    engine = loaded(server.url)
    heard = Heard()
    moments: dict[str, int] = {}

    async def answer(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        yield event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        await asyncio.sleep(0.2)
        moments["text"] = now_ns()
        yield token(request, "late", finish_reason="stop")
        await asyncio.to_thread(heard.first_came.wait, 60)
        moments["usage"] = now_ns()
        yield usage(1)
        yield DONE

    server.answer = answer
    engine.submit(TEXT, heard)
    heard.wait()
    assert moments["text"] <= heard.first[0] <= heard.answers[0][0] <= moments["usage"]


def test_nothing_is_lost_of_many_streams(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url, generation=Generation(max_new_tokens=250))
    heard = Heard()
    queries = [Query(index=n, prompt=IDS.prompt, seed=1000 * n + n) for n in range(80)]
    for query in queries:
        engine.submit(query, heard)
    heard.wait(len(queries))
    assert not heard.errors
    assert sum(answer.output_tokens for _, answer in heard.answers.values()) == 20_000
    for query in queries:
        assert list(heard.answers[query.index][1].token_ids) == openai_server.token_ids({"seed": query.seed}, 250)


def test_queries_go_where_the_fewest_are_in_flight(loaded: Loaded) -> None:
    gate = threading.Event()

    async def held(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        await asyncio.to_thread(gate.wait, 60)
        async for part in openai_server.whole(request, body):
            yield part

    with OpenAIServer() as one, OpenAIServer() as other:
        engine = loaded(one.url, other.url)
        assert engine.info.replicas == 2
        before = len(one.seen), len(other.seen)
        one.answer = held
        heard = Heard()
        engine.submit(TEXT, heard)
        for index in range(1, 6):
            # Only one query is held: all the others find the second server idle again.
            engine.submit(Query(index=index, prompt=TEXT.prompt, seed=1), heard)
            heard.wait()
        gate.set()
        heard.wait()
        assert (len(one.seen) - before[0], len(other.seen) - before[1]) == (1, 5)
        engine.close()


def test_who_has_not_answered_is_known_at_the_end(loaded: Loaded) -> None:
    """A server that hangs says nothing: the run is stopped, and its queries are what is left."""
    asked = threading.Semaphore(0)

    async def hangs(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        asked.release()
        await asyncio.sleep(3600)
        yield b""

    with OpenAIServer() as one, OpenAIServer() as other:
        engine = loaded(one.url, other.url)
        one.answer = other.answer = hangs
        recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
        for index in range(3):
            recorder.issue(Query(index=index, prompt=TEXT.prompt, seed=1), None)
            assert asked.acquire(timeout=60)
        recorder.close()
        assert recorder.unanswered == {0: 2, 1: 1}
        words = "Still unanswered when it ended: 2 queries on jw2, 1 query on jw3."
        assert unanswered_words(recorder, ["jw2", "jw3"]) == words
        engine.close()


def test_of_one_server_nobody_asks_who_has_not_answered(loaded: Loaded) -> None:
    with OpenAIServer() as one:
        recorder = Recorder(loaded(one.url), None, now_ns(), lambda sample, done: None)
        recorder.close()
        assert unanswered_words(recorder, [one.url]) == ""


def test_the_key_goes_to_the_server_and_nowhere_else(
    server: OpenAIServer, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    engine = loaded(server.url)
    server.answer = parts(Refusal(401, '{"error": {"message": "Incorrect key: sk-secret."}}'))
    assert ask(engine).errors[0] == "HTTP 401: Incorrect key: ***."
    assert server.seen[-1]["key"] == "Bearer sk-secret"
    assert "sk-secret" not in str(engine.info.details)


def test_what_the_client_counts_is_of_the_window(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    engine.begin_window()
    ask(engine)
    counted = engine.end_window()
    assert counted is not None
    assert (counted.waited, counted.resent) == (0, 0)
    assert counted.max_connections is not None
    assert counted.max_connections > 1


def test_names_of_what_servers_are_shown_are_in_the_result(
    server: OpenAIServer, loaded: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = Secrets({"VARIABLE": "env-secret"}, "sk-secret-key", {"X-Team": "team-secret"})
    monkeypatch.setattr(Known, "secrets", secrets)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    engine = loaded(server.url)
    ask(engine)
    assert server.seen[-1]["key"] == "Bearer sk-secret-key"
    assert engine.info.details["headers"] == ["X-Team"]
    assert engine.info.details["api_key"] is True
    assert "secret" not in str(engine.info.details)


def test_submit_does_not_wait_for_the_answer(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url)
    gate = threading.Event()

    async def held(request: web.Request, body: dict[str, Any]) -> AsyncIterator[bytes]:
        await asyncio.to_thread(gate.wait, 60)
        async for part in openai_server.whole(request, body):
            yield part

    server.answer = held
    heard = Heard()
    for index in range(150):  # more than a client with a limit of connections would send at once
        engine.submit(Query(index=index, prompt=TEXT.prompt, seed=1), heard)
    until = time.monotonic() + 60
    while sum(body["seed"] == 1 for body in server.seen) < 150:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not heard.answers
    gate.set()
    heard.wait(150)
    assert len(heard.answers) == 150
