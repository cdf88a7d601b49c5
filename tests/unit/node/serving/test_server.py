"""Our own server for engines that have none, asked by the engine `endpoint` and by hand."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmark.node.engines.endpoint import Engine as Endpoint
from benchmark.node.engines.simulated import Engine as Simulated
from benchmark.node.interfaces import Demands, EngineBroken, Prompt, Query
from benchmark.node.serving.server import MOST_BYTES, EngineServer
from benchmark.profiles import Generation
from benchmark.secret_settings import Secrets
from benchmark.settings import Settings
from tests.unit.node.heard import Heard

KEY = "the key of this run"
SIX = Generation(max_new_tokens=6, min_new_tokens=2, temperature=0.7, top_p=0.9)


class Served:
    """A simulated engine behind the server; it keeps what it was asked and what was cancelled."""

    def __init__(self, stack: ExitStack, generation: Generation, **options: Any) -> None:
        self.engine = Simulated(Settings(), generation, {"ttft_ms": 2, "tpot_ms": 2, **options})
        self.asked: list[Query] = []
        self.cancelled: list[Query] = []
        self.over = threading.Event()
        submit = self.engine.submit

        def keep(query: Query, listener: Any) -> None:
            self.asked.append(query)
            submit(query, listener)

        def cancel(query: Query) -> None:
            self.cancelled.append(query)
            self.over.set()

        self.engine.submit, self.engine.cancel = keep, cancel  # type: ignore[method-assign]
        self.engine.load()
        stack.callback(self.engine.close)
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.server = EngineServer(self.engine, "simulated", "m", generation, KEY)
        self.server.start(listening)
        stack.callback(self.server.close)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def post(self, route: str = "/v1/completions", key: str = KEY, **changes: Any) -> tuple[int, str]:
        """Return the status, and the body or what the error says."""
        fields = {"model": "m", "stream": True, "return_token_ids": True, "max_tokens": 6, "min_tokens": 2}
        fields |= {"prompt": [1, 2, 3]} if route == "/v1/completions" else {}
        body = {name: value for name, value in {**fields, **changes}.items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", route, json.dumps(body), {"Authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text if answer.status == 200 else json.loads(text)["error"]["message"]


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with ExitStack() as stack:
        yield lambda generation=SIX, **options: Served(stack, generation, **options)


def asking(served: Served, directory: Path, generation: Generation = SIX, key: str = KEY) -> Endpoint:
    engine = Endpoint(
        Settings(
            benchmark_device="cpu",
            benchmark_endpoint_urls=[served.url],
            benchmark_endpoint_model="m",
            benchmark_endpoint_query_timeout_s=60,
        ),
        generation,
        {},
    )
    engine.directory, engine.secrets = directory, Secrets(api_key=key)
    engine.demands = Demands(greedy=True, token_ids=True, texts=True, ids=True, longest=9, lengths=True)
    return engine


def test_the_client_is_answered_as_if_it_had_the_engine(serve: Callable[..., Served], tmp_path: Path) -> None:
    served, heard, own = serve(), Heard(), Heard()
    client = asking(served, tmp_path)
    info = client.load()
    assert info.details["refused_fields"] == {"completions": [], "chat": []}
    assert info.details["counting"] == {"completions": "token ids", "chat": "token ids"}
    assert "(simulated)" in str(info.details["server"])
    queries = [
        Query(0, Prompt("text", "Why is that so?"), 11),
        Query(1, Prompt("ids", "", token_ids=(4, 5, 6)), 12),
        Query(2, Prompt("exact", "", token_ids=(4, 5), output_tokens=3), 13),
        Query(3, Prompt("greedy", "Why?"), 14, greedy=True),
        Query(4, Prompt("one", "", token_ids=(4, 5), output_tokens=1), 15),
    ]
    probes = len(served.asked)
    for query in queries:
        client.submit(query, heard)
        served.engine.submit(query, own)
    heard.wait(5)
    own.wait(5)
    client.close()
    assert heard.tokens == own.tokens
    assert heard.inputs == own.inputs
    assert [len(heard.tokens[number]) for number in range(5)] == [6, 6, 3, 6, 1]
    assert all(heard.first[number] <= heard.last[number] for number in range(5))
    reached = {one.seed: one for one in served.asked[probes:] if one.prompt.id.isdigit()}
    for query in queries:
        asked = reached[query.seed]
        assert asked.greedy == query.greedy
        assert (asked.prompt.text, asked.prompt.token_ids) == (query.prompt.text, query.prompt.token_ids)
        assert asked.prompt.output_tokens == query.prompt.output_tokens
    assert served.cancelled == []


@pytest.mark.parametrize(
    ("changes", "status", "why"),
    [
        ({"key": "another"}, 401, "The key is not this run's key (benchmark_endpoint_api_key)."),
        ({"key": ""}, 401, "The key is not this run's key (benchmark_endpoint_api_key)."),
        ({"route": "/v1/embeddings"}, 404, "POST /v1/embeddings: Not Found."),
        ({"model": "other"}, 404, "The model other does not exist: this server serves m."),
        ({"stream": False}, 400, "stream is False: it must be True."),
        ({"logprobs": 5}, 400, "logprobs is not a field of this route."),
        ({"prompt": "text"}, 400, "prompt is 'text': it must be a list."),
        ({"max_tokens": None}, 400, "max_tokens is missing."),
        ({"temperature": 0.5}, 400, "temperature is 0.5, but this server samples with 0.7."),
        ({"top_p": 1}, 400, "top_p is 1, but this server samples with 0.9."),
        ({"repetition_penalty": 1.1}, 400, "repetition_penalty is 1.1: it must be at most 1."),
        ({"max_tokens": 7}, 400, "max_tokens is 7, but this server's answers have at most 6 tokens."),
        ({"min_tokens": 3}, 400, "min_tokens is 3, but this server's answers have at least 2 tokens."),
        (
            {"route": "/v1/chat/completions", "messages": [{"role": "system", "content": "Be brief."}]},
            400,
            "messages.0.role is 'system': it must be user.",
        ),
    ],
)
def test_what_is_refused_is_named(serve: Callable[..., Served], changes: dict[str, Any], status: int, why: str) -> None:
    served = serve()
    found, said = served.post(**changes)
    assert (found, said.split(" Known: ")[0]) == (status, why)
    assert KEY not in said
    assert served.asked == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "why"),
    [
        (b"", {}, 400, "The body of the request is not a JSON object."),
        (b'{"model": ', {}, 400, "The body of the request is not a JSON object."),
        (b"[" * 100_000, {}, 400, "The body of the request is not a JSON object."),
        (b"null", {}, 400, "The body of the request is not a JSON object."),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400, "The body of the request cannot be read"),
        (gzip.compress(b" " * (MOST_BYTES + 1)), {"Content-Encoding": "gzip"}, 413, "Request Entity Too Large."),
    ],
    ids=["nothing", "half", "deep", "null", "no gzip", "large"],
)
def test_a_body_that_is_none_of_ours(
    serve: Callable[..., Served],
    capfd: pytest.CaptureFixture[str],
    body: bytes,
    headers: dict[str, str],
    status: int,
    why: str,
) -> None:
    served = serve()
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("POST", "/v1/completions", body, {"Authorization": f"Bearer {KEY}", **headers})
    answer = connection.getresponse()
    said = json.loads(answer.read())["error"]["message"]
    connection.close()
    assert (answer.status, why in said) == (status, True), said
    assert served.post()[0] == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\nAuthorization: Bearer " + KEY.encode() + b"\0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nAuthorization: Bearer " + KEY.encode() + b"x" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
    ids=["version", "header", "long", "TLS"],
)
def test_what_is_no_request_is_not_logged(
    serve: Callable[..., Served], caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    served = serve()
    with socket.create_connection(("127.0.0.1", served.port), 60) as connection:
        connection.sendall(sent)
        assert b" 400 Bad Request" in connection.recv(4096)
    assert served.post()[0] == 200
    assert caplog.records == []


def test_an_answer_is_cut_where_less_is_asked_for(serve: Callable[..., Served]) -> None:
    served = serve()
    status, text = served.post(max_tokens=3, seed=5, stream_options={"include_usage": True})
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert status == 200
    ids = [choice["token_ids"] for one in events for choice in one["choices"]]
    assert ids == [[5], [6, 7]]
    counts = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert events[-1]["usage"] == {**counts, "prompt_tokens_details": {"cached_tokens": 0}}
    assert events[-2]["choices"][0]["finish_reason"] == "length"


def test_a_query_whose_client_goes_is_cancelled(serve: Callable[..., Served]) -> None:
    served = serve(tpot_ms=100_000)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    body = {"model": "m", "stream": True, "return_token_ids": True, "max_tokens": 6, "min_tokens": 2, "prompt": [1]}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}"})
    assert connection.getresponse().fp.readline()  # its first token has come
    assert served.cancelled == []
    connection.close()
    assert served.over.wait(60)
    assert served.cancelled == served.asked


def test_a_failed_query_is_an_error_of_the_server(serve: Callable[..., Served]) -> None:
    served = serve(fail_indexes=[0])
    assert served.post() == (500, "The simulated engine is set to fail this query.")
    assert served.post()[0] == 200

    def breaks_off(query: Query, listener: Any) -> None:
        listener.first_token(query, 1, 5)
        listener.failed(query, "It broke.")

    served.engine.submit = breaks_off  # type: ignore[method-assign]
    status, text = served.post()
    *_, last = [line for line in text.splitlines() if line]
    assert (status, json.loads(last.removeprefix("data: "))["error"]["message"]) == (200, "It broke.")
    assert served.cancelled == []


def test_once_the_engine_is_broken_nobody_is_answered(serve: Callable[..., Served]) -> None:
    served = serve(break_at=1)
    assert served.post()[0] == 200
    served.server.check()
    assert served.post() == (503, "The simulated engine is set to break.")
    with pytest.raises(EngineBroken, match="set to break"):
        served.server.check()
    with pytest.raises(ConnectionRefusedError):
        served.post()


def test_a_wrong_key_is_one_sentence(serve: Callable[..., Served], tmp_path: Path) -> None:
    client = asking(serve(), tmp_path, key="wrong")
    with pytest.raises(Exception, match="HTTP 401") as caught:
        client.load()
    client.close()
    assert "The key is not this run's key" in str(caught.value)


def test_closing_ends_what_is_in_flight(serve: Callable[..., Served]) -> None:
    served = serve(ttft_ms=100_000)
    ended: list[Any] = []

    def ask() -> None:
        try:
            ended.append(served.post())
        except (http.client.HTTPException, OSError) as error:
            ended.append(error)

    client = threading.Thread(target=ask, daemon=True)
    client.start()
    deadline = time.monotonic() + 60
    while not served.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    served.server.close()
    client.join(60)
    assert len(ended) == 1
    assert isinstance(ended[0], (http.client.RemoteDisconnected, ConnectionError))
    with pytest.raises(ConnectionRefusedError):
        served.post()
    served.server.close()
