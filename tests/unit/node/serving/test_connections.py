"""Connections that servers end when they like, against servers that speak HTTP by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmark.node.interfaces import Query
from benchmark.node.serving.client import ALONE, Client, Request
from benchmark.node.serving.reply import ReplyError
from benchmark.secret_settings import Secrets
from tests.openai_server import event
from tests.raw_server import Asked, Handler, RawServer, models, polite, stream
from tests.unit.node.endpoint.asked import TEXT, Heard

CHAT = "/v1/chat/completions"

Opened = Callable[..., Client]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Return a function that makes a client; all are closed at the end."""
    with ExitStack() as stack:

        def make(*urls: str, secrets: Secrets | None = None) -> Client:
            client = Client(urls, secrets, 60, lambda: None)
            stack.callback(client.close)
            return client

        yield make


def ask(client: Client, count: int = 1) -> Heard:
    """Ask one query after the other."""
    heard = Heard()
    for index in range(count):
        client.submit(Query(index=index, prompt=TEXT.prompt, seed=1), heard, Request(CHAT, {}))
        heard.wait()
    return heard


async def once(asked: Asked) -> None:
    """Answer one request on a connection, and close it without a word at the second."""
    if asked.number:
        asked.writer.close()
    else:
        await polite(asked)


async def once_and_reset(asked: Asked) -> None:
    if asked.number:
        asked.reset()
    else:
        await polite(asked)


async def closing(asked: Asked) -> None:
    """Answer, and close at once without having said so: the next request may be on its way already."""
    await polite(asked)
    await asked.writer.drain()
    asked.writer.close()


@pytest.mark.parametrize("server", [once, once_and_reset])
def test_what_a_used_connection_lost_is_sent_once_more(server: Handler, opened: Opened) -> None:
    with RawServer(server) as running:
        client = opened(running.url)
        client.begin_window()
        heard = ask(client, 6)
        assert not heard.errors
        # Each connection that is kept has served one query when it turns out to be closed.
        assert client.end_window()["resent"] == 3
        assert len(running.asked) == 9
        client.begin_window()
        assert client.end_window()["resent"] == 0


@pytest.mark.parametrize("idle_s", [0.05, None])
def test_no_query_fails_where_connections_end_while_idle(idle_s: float | None, opened: Opened) -> None:
    with RawServer(polite if idle_s else closing, idle_s) as running:
        client = opened(running.url)
        heard = Heard()
        for index in range(40):
            client.submit(Query(index=index, prompt=TEXT.prompt, seed=1), heard, Request(CHAT, {}))
            heard.wait()
            threading.Event().wait(0.05 if idle_s and index % 4 == 3 else 0)
        assert not heard.errors
        assert len(heard.answers) == 40


def test_a_server_that_resets_after_an_error_fails_no_other(opened: Opened) -> None:
    async def handle(asked: Asked) -> None:
        if asked.connection == 0 and asked.number == 0:
            asked.send(b'{"error": {"message": "oops"}}', "500 Internal Server Error")
        elif asked.connection == 0:
            asked.reset()
        else:
            await polite(asked)

    with RawServer(handle) as running:
        heard = ask(opened(running.url), 5)
        assert heard.errors == {0: "HTTP 500: oops"}
        assert sorted(heard.answers) == [1, 2, 3, 4]


def test_a_status_is_reported_where_the_connection_breaks(opened: Opened) -> None:
    async def handle(asked: Asked) -> None:
        asked.writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\nhalf")
        await asked.writer.drain()
        asked.reset()

    with RawServer(handle) as running:
        assert "HTTP 500: the connection broke" in ask(opened(running.url)).errors[0]


async def silent(asked: Asked) -> None:
    asked.writer.close()


async def half_a_head(asked: Asked) -> None:
    if not asked.number:
        await polite(asked)
        return
    asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    await asked.writer.drain()
    asked.writer.close()


async def cut(asked: Asked) -> None:
    if not asked.number:
        await polite(asked)
        return
    asked.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + event({"choices": []}))
    await asked.writer.drain()
    asked.reset()


def test_nothing_is_sent_twice_on_fresh_connections(opened: Opened) -> None:
    with RawServer(silent) as running:
        heard = ask(opened(running.url))
        assert "broke" in heard.errors[0]
        assert len(running.asked) == 1


@pytest.mark.parametrize("server", [half_a_head, cut])
def test_nothing_is_sent_twice_of_which_a_byte_came(server: Handler, opened: Opened) -> None:
    with RawServer(server) as running:
        client = opened(running.url)
        heard = ask(client, 2)
        assert list(heard.errors) == [1]
        assert len(running.asked) == 2
        assert client.end_window()["resent"] == 0


def test_what_is_sent_once_more_is_not_sent_a_third_time(opened: Opened) -> None:
    async def handle(asked: Asked) -> None:
        if len(running.asked) == 1:
            await polite(asked)
        else:
            asked.reset()

    with RawServer(handle) as running:
        assert list(ask(opened(running.url), 2).errors) == [1]
        assert len(running.asked) == 3


@pytest.mark.parametrize("server", [once, once_and_reset, closing])
def test_questions_before_measuring_have_their_own_connections(server: Handler, opened: Opened) -> None:
    with RawServer(server) as running:
        client = opened(running.url)
        for _ in range(5):
            assert "served" in client.call(client.get(client.targets[0], "/v1/models"))
            client.call(
                client.ask(client.targets[0], Request(CHAT, {}), lambda at, token_id: None, lambda reply: None, ALONE)
            )
        assert [asked.number for asked in running.asked] == [0] * 10
        assert running.opened == 10


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_question_without_a_byte_is_asked_once_more(method: str, opened: Opened) -> None:
    async def odd(asked: Asked) -> None:
        if asked.connection % 2:
            await polite(asked)
        else:
            asked.reset()

    def question(client: Client) -> object:
        target = client.targets[0]
        if method == "GET":
            return client.call(client.get(target, "/v1/models"))
        return client.call(client.ask(target, Request(CHAT, {}), lambda at, token_id: None, lambda reply: None, ALONE))

    with RawServer(odd) as running:
        client = opened(running.url)
        for _ in range(3):
            question(client)
        assert running.opened == 6
    with RawServer(silent) as running:
        client = opened(running.url)
        with pytest.raises(ReplyError, match="broke"):
            question(client)
        assert len(running.asked) == 2


def test_a_query_string_and_headers_go_onto_every_request(opened: Opened) -> None:
    secrets = Secrets(api_key="sk-secret-key", headers={"X-Team": "team-secret"})
    with RawServer(polite) as running:
        client = opened(f"{running.url}/openai/v1/?api-version=preview&x=1", secrets=secrets)
        assert client.targets[0].url == f"{running.url}/openai"
        client.call(client.get(client.targets[0], "/v1/models"))
        assert not ask(client).errors
        assert [asked.route for asked in running.asked] == [
            "/openai/v1/models?api-version=preview&x=1",
            f"/openai{CHAT}?api-version=preview&x=1",
        ]
        for asked in running.asked:
            assert asked.headers["authorization"] == "Bearer sk-secret-key"
            assert asked.headers["x-team"] == "team-secret"


def test_what_a_server_repeats_of_secrets_is_masked(opened: Opened) -> None:
    secrets = Secrets({"PROXY": "env-secret"}, "sk-secret-key", {"X-Auth": "Basic dGVhbTpzZWNyZXQ="})

    async def handle(asked: Asked) -> None:
        said = b"no sk-secret-key, no Basic dGVhbTpzZWNyZXQ=, no dGVhbTpzZWNyZXQ=, no env-secret"
        if asked.head.startswith("GET"):
            asked.send(models(said.decode()), more="Server: it has sk-secret-key\r\n")
        else:
            asked.send(said, "403 Forbidden")

    with RawServer(handle) as running:
        client = opened(running.url, secrets=secrets)
        assert ask(client).errors == {0: "HTTP 403: no ***, no ***, no ***, no ***"}
        # A header may say which model is meant: what is read on is itself but for the key.
        listed = client.call(client.get(client.targets[0], "/v1/models"))
        assert "env-secret" in listed
        assert "sk-secret-key" not in listed
        assert client.targets[0].software == "it has ***"


def test_a_proxy_leads_to_servers_but_never_to_loopback(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    async def proxy(asked: Asked) -> None:
        asked.send(stream(), kind="text/event-stream")

    with RawServer(proxy) as through, RawServer(polite) as direct:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss-word@127.0.0.1:{through.port}")
        client = opened("http://far.example", direct.url)
        assert not ask(client, 2).errors
        assert [asked.route for asked in through.asked] == [f"http://far.example{CHAT}"]
        assert through.asked[0].headers["proxy-authorization"] == "Basic bWU6cEBzcy13b3Jk"
        assert [asked.route for asked in direct.asked] == [CHAT]
        assert [target.address.through for target in client.targets] == ["HTTP_PROXY", ""]


@pytest.mark.parametrize("gone", [True, False])
def test_a_proxy_that_refuses_is_named_by_its_variable(
    gone: bool, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(asked: Asked) -> None:
        asked.send(b"", "407 Proxy Authentication Required")

    with RawServer(refuse) as proxy:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        client = opened("https://far.example")
        if gone:
            proxy.stop()
        error = ask(client).errors[0]
    assert "The proxy on the way to https://far.example (https_proxy)" in error
    assert str(proxy.port) not in error
    assert ("cannot be reached: Connection refused" if gone else "put user and password into https_proxy") in error


def test_a_connection_for_each_of_many_at_once(opened: Opened) -> None:
    gate = threading.Event()

    async def held(asked: Asked) -> None:
        await asyncio.to_thread(gate.wait, 60)
        await polite(asked)

    with RawServer(held) as running:
        client = opened(running.url)
        heard = Heard()
        for index in range(20):
            client.submit(Query(index=index, prompt=TEXT.prompt, seed=1), heard, Request(CHAT, {}))
        gate.set()
        heard.wait(20)
        assert not heard.errors
        assert client.end_window()["waited"] == 0
