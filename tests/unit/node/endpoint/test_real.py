"""The engine against `transformers serve`, started by the engine itself: a real server, a real (tiny) model."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from benchmark.node.engines.endpoint import Engine
from benchmark.node.engines.sequential import Engine as Sequential
from benchmark.node.interfaces import Prompt, Query, now_ns
from benchmark.node.model.tiny import make_tiny_model
from benchmark.node.recorder import Recorder
from benchmark.profiles import Generation
from benchmark.records import EngineInfo, Sample
from benchmark.settings import Settings

GREEDY = Generation(max_new_tokens=12, temperature=0)
QUERIES = [Query(index=n, prompt=Prompt(id=f"p{n}", text=f"Explain photosynthesis, {n}."), seed=n) for n in range(4)]
AS_IDS = Query(index=9, prompt=Prompt(id="ids", text="", token_ids=(5, 6, 7)), seed=0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def processes_of(marker: str) -> list[str]:
    """Return the command lines of all processes that hold `marker`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if marker in line]


class Served:
    """One start of the server, and everything that was asked of it."""

    def __init__(self, directory: Path) -> None:
        make_tiny_model(directory / "model")
        self.port = free_port()
        self.settings = Settings(
            benchmark_model=str(directory / "model"),
            benchmark_device="cpu",
            benchmark_dtype="float32",
            benchmark_endpoint_urls=[f"http://127.0.0.1:{self.port}"],
            benchmark_endpoint_model=str(directory / "model"),
            benchmark_endpoint_start=(
                f"HF_HUB_OFFLINE=1 {Path(sys.executable).parent}/transformers serve {directory}/model --device cpu "
                f"--host 127.0.0.1 --port {self.port}"
            ),
        )
        self.samples: list[Sample] = []
        engine = Engine(self.settings, GREEDY, {})
        engine.directory = directory
        try:
            self.info: EngineInfo = engine.load()
            self.running = processes_of(f"--port {self.port}")
            recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
            for query in [*QUERIES, AS_IDS]:
                recorder.issue(query, now_ns())
            for query in [*QUERIES, AS_IDS]:
                recorder.wait(query)
            self.samples = sorted(recorder.samples, key=lambda sample: sample.index)
        finally:
            engine.close()
        self.left = processes_of(f"--port {self.port}")
        self.log = (directory / "endpoint.log").read_text()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"))


def test_it_was_started_and_nothing_of_it_is_left(served: Served) -> None:
    assert served.running
    assert not served.left
    assert "POST /v1/chat/completions" in served.log
    assert "Finished server process" in served.log, "it was asked to end and not only killed"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port))


def test_what_it_takes_was_found_out(served: Served) -> None:
    details = served.info.details
    assert details["server"] == "uvicorn"
    assert details["counting"] == {"chat": "usage"}
    refused = details["refused_fields"]
    assert isinstance(refused, dict)
    assert refused["chat"] == ["min_p", "repetition_penalty", "return_token_ids", "top_k"]


def test_answers_are_those_of_the_same_model_without_a_server(served: Served) -> None:
    """Greedy: the same prompt gives the same number of tokens, at the same number of input tokens."""
    engine = Sequential(served.settings, GREEDY, {})
    engine.load()
    recorder = Recorder(engine, None, now_ns(), lambda sample, done: None)
    for query in QUERIES:
        recorder.issue(query, now_ns())
    for theirs, ours in zip(served.samples, recorder.samples, strict=False):
        assert theirs.error is None
        assert (theirs.input_tokens, theirs.output_tokens) == (ours.input_tokens, ours.output_tokens)
        assert theirs.first_token_ns is not None
        assert theirs.completed_ns is not None
        # Both are one reading where a busy machine hands over the whole answer at once.
        assert theirs.issued_ns < theirs.first_token_ns <= theirs.completed_ns


def test_a_prompt_of_ids_that_it_does_not_take_fails(served: Served) -> None:
    assert "/v1/completions cannot be used: " in str(served.samples[-1].error)
    assert "HTTP 400: prompt must be a string." in str(served.samples[-1].error)
