"""The engine against a double that misbehaves to order; test_endpoint_real.py has a real server."""

from __future__ import annotations

import asyncio
import shlex
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from benchmark.errors import InputError, SetupError
from benchmark.node.engines.endpoint import Engine
from benchmark.node.interfaces import Answer, EngineBroken, Prompt, Query, now_ns
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.serving.client import Client, Request
from benchmark.profiles import Generation
from benchmark.records import EngineInfo
from benchmark.secret_settings import Secrets
from benchmark.settings import Settings
from tests import openai_server
from tests.openai_server import DONE, Cut, OpenAIServer, Refusal, event, finish, parts, token, usage

SIX = Generation(max_new_tokens=6, min_new_tokens=6, temperature=0.7, seed=1)
TEXT = Query(index=0, prompt=Prompt(id="p", text="Explain photosynthesis."), seed=5)
IDS = Query(index=0, prompt=Prompt(id="p", text="Explain photosynthesis.", token_ids=(11, 12, 13)), seed=5)


class Heard:
    """A listener that remembers, and holds a query to what the interface promises."""

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.answers: dict[int, tuple[int, Answer]] = {}
        self.errors: dict[int, str] = {}
        self.first_came = threading.Event()
        self._ended = threading.Semaphore(0)

    def first_token(self, query: Query, at_ns: int, token_id: int | None = None) -> None:
        assert query.index not in self.first | self.answers | self.errors
        self.first[query.index] = at_ns
        self.first_came.set()

    def completed(self, query: Query, at_ns: int, answer: Answer) -> None:
        assert query.index not in self.answers | self.errors
        assert self.first[query.index] <= at_ns <= now_ns()
        self.answers[query.index] = (at_ns, answer)
        self._ended.release()

    def failed(self, query: Query, error: str) -> None:
        assert query.index not in self.answers | self.errors
        self.errors[query.index] = error
        self._ended.release()

    def wait(self, queries: int = 1) -> None:
        for _ in range(queries):
            assert self._ended.acquire(timeout=120)


class Known(Engine):
    """The engine, with what `load` said."""

    info: EngineInfo

    def load(self) -> EngineInfo:
        self.info = super().load()
        return self.info


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        yield running


Loaded = Callable[..., Known]


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


def ask(engine: Engine, query: Query = TEXT) -> Heard:
    heard = Heard()
    engine.submit(query, heard)
    heard.wait()
    return heard


def plain(heard: Heard) -> tuple[int, int, tuple[int, ...], str | None]:
    """Return tokens in and out, ids and text of the one answer."""
    ((_, answer),) = heard.answers.values()
    return answer.input_tokens, answer.output_tokens, answer.token_ids, answer.text


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
    with pytest.raises(InputError, match="asks for top_k = 5, which /v1/completions does not take"):
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


FAULTS: dict[str, tuple[openai_server.Answer, str]] = {
    "500": (parts(Refusal(500, "x" * 5000)), "HTTP 500: " + "x" * 300),
    "429": (parts(Refusal(429, '{"error": {"message": "slow down"}}')), "HTTP 429: slow down"),
    "422": (parts(Refusal(422, '{"detail": "no"}')), "HTTP 422: no"),
    "cut": (parts(lambda r: token(r, "a"), Cut()), "The connection to http://127.0.0.1:"),
    "no end": (parts(lambda r: token(r, "a"), usage(1)), "The stream ended in the middle"),
    "no counts": (parts(lambda r: token(r, "a"), finish, DONE), "neither token ids nor usage"),
    "no json": (parts(lambda r: token(r, "a"), b"data: {oops\n\n", DONE), "streamed what is not JSON: {oops"),
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
    assert "no whole answer within 0.3 s (benchmark_endpoint_query_timeout_s)" in heard.errors[0]


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


def test_without_a_url_or_a_command_there_is_nothing_to_measure(loaded: Loaded) -> None:
    with pytest.raises(InputError, match="set benchmark_endpoint_urls to running servers, or"):
        loaded()


def test_a_server_that_is_not_there_is_a_setup_error(loaded: Loaded) -> None:
    with OpenAIServer() as gone:
        url = gone.url
    with pytest.raises(SetupError, match=f"{url} cannot be reached"):
        loaded(url)


def test_what_is_no_such_server_is_a_setup_error(server: OpenAIServer, loaded: Loaded) -> None:
    server.answer = parts(Refusal(404, "The model does not exist."))
    with pytest.raises(SetupError, match=r"cannot be used\. .*HTTP 404: The model does not exist\."):
        loaded(server.url)
    server.models = ()
    with pytest.raises(SetupError, match="lists no model: set benchmark_endpoint_model"):
        loaded(server.url, benchmark_endpoint_model="")


def test_a_server_is_not_started_where_another_one_answers(
    server: OpenAIServer, loaded: Loaded, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=r"answers at .* before benchmark_endpoint_start was run"):
        loaded(server.url, benchmark_endpoint_start=f"touch {tmp_path}/started")
    assert not (tmp_path / "started").exists()


def test_a_command_that_ends_early_is_a_setup_error(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "directory", tmp_path)
    with OpenAIServer() as gone:
        url = gone.url
    with pytest.raises(SetupError, match=r"ended with exit code 3\. The end of endpoint\.log: no such model"):
        loaded(url, benchmark_endpoint_start="echo no such model; exit 3")
    with pytest.raises(SetupError, match=r"not ready within benchmark_endpoint_start_timeout_s = 1 s.*still loading"):
        loaded(url, benchmark_endpoint_start="echo still loading; sleep 600", benchmark_endpoint_start_timeout_s=1)


def test_what_a_server_refuses_is_reported_with_its_log(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "directory", tmp_path)
    with OpenAIServer() as gone:
        port = gone.port
    program = (
        f"import time; from tests.openai_server import OpenAIServer, Refusal, parts\n"
        f"with OpenAIServer(port={port}) as server:\n"
        "    server.answer = parts(Refusal(500, 'EngineCore died. See stack trace (above) for the root cause.'))\n"
        "    print('RuntimeError: head_dim=16 is not supported', flush=True); time.sleep(600)"
    )
    start = shlex.join([sys.executable, "-c", program])
    with pytest.raises(SetupError, match=r"EngineCore died.*first error in endpoint\.log: RuntimeError: head_dim=16"):
        loaded(f"http://127.0.0.1:{port}", benchmark_endpoint_start=start, benchmark_endpoint_model="served")


def test_options_that_the_engine_does_not_have_are_refused() -> None:
    with pytest.raises(InputError, match="has no options"):
        Engine(Settings(), SIX, {"batch": 4}).load()


def test_replicas_are_what_the_user_says(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url, benchmark_replicas=4)
    assert engine.info.replicas == 4


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
