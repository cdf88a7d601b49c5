"""A node that serves for a driver, and what a driver tries before it measures."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from benchmark.errors import RunError, SetupError
from benchmark.node.interfaces import EngineBroken
from benchmark.node.measuring import error_of
from benchmark.node.request import RunRequest
from benchmark.node.system import run
from benchmark.records import NodeResult, Sample, Server, ServerPlace
from benchmark.resolve import resolve
from benchmark.rundir import GO, LISTENS, LOAD, READY, SERVES, WINDOWS
from benchmark.secret_settings import Secrets
from tests.unit.building import RUN_ID
from tests.unit.node.led import put

CHECKOUT = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
KEY = "the key of this run, which is long"


def free_port() -> int:
    with socket.create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])


def request(directory: Path, key: str = "", **settings: Any) -> RunRequest:
    start = (
        f"cd {CHECKOUT}; {f'KEY={key} ' if key else ''}exec {sys.executable} -m tests.one_server 0 {directory}/served"
    )
    resolved = resolve(
        {
            "benchmark_profile": str(CHECKOUT / "tests/data/fast.yaml"),
            "benchmark_engine": "endpoint",
            "benchmark_endpoint_start": start,
            "benchmark_endpoint_model": "served",
            "benchmark_system": "cluster",
            "benchmark_device": "cpu",
            "benchmark_probes": "off",
            **settings,
        }
    )
    place = ServerPlace(node="jw2", host=HOST, port=free_port())
    secrets = Secrets(api_key=KEY)
    return RunRequest(RUN_ID, "jw2", resolved, directory, 60, serves=place, limit_s=60, secrets=secrets)


def wait(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"never came: {path.name}"
        time.sleep(0.01)


def leading(directory: Path, measured: int) -> threading.Thread:
    """Lead the node as the controller does, and send so many windows of a quarter of a second."""

    def lead() -> None:
        try:
            wait(directory / LISTENS)
            put(directory, LOAD, 1)
            wait(directory / READY)
        except AssertionError:
            return  # the node has failed, as some tests ask of it, or waits itself until it fails
        started = time.time_ns()
        put(directory, GO, started)
        time.sleep(0.3 * max(1, measured))
        windows = [
            {
                "started_unix_ns": started + number * 300_000_000,
                "ended_unix_ns": started + number * 300_000_000 + 250_000_000,
            }
            for number in range(measured)
        ]
        beside = directory / "windows.tmp"
        beside.write_text(json.dumps(windows))
        beside.rename(directory / WINDOWS)

    thread = threading.Thread(target=lead, daemon=True)
    thread.start()
    return thread


def test_it_serves_until_it_is_told_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BENCHMARK_SERVE_ADDRESS", "BENCHMARK_SERVE_PORT", "BENCHMARK_SERVE_API_KEY", "no_proxy"):
        monkeypatch.setenv(name, "")  # what the run sets is undone
    asked = request(tmp_path)
    leading(tmp_path, measured=2)
    result = run(asked)
    assert (result.status, result.verdict, result.metrics) == ("complete", None, None)
    assert [one.window.ended_unix_ns - one.window.started_unix_ns for one in result.served] == [250_000_000] * 2
    assert all(one.telemetry and one.telemetry.ticks for one in result.served)
    assert result.window == result.served[0].window
    assert result.engine is not None
    assert result.engine.details["asks_for_key"] is True
    served = json.loads((tmp_path / SERVES).read_text())
    assert served == {"node": "jw2", "url": asked.serves and asked.serves.url, "replicas": 1}
    kept = [path for path in tmp_path.iterdir() if path.is_file()]
    assert [path.name for path in kept if KEY in path.read_text(errors="replace")] == []
    with socket.create_server((HOST, asked.serves.port if asked.serves else 0)):
        pass  # nothing listens there any more


@pytest.mark.parametrize("breaks", [False, True])
def test_an_engine_without_a_server_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: bool) -> None:
    """And the node is out once that engine can answer nothing any more."""
    for name in ("BENCHMARK_SERVE_ADDRESS", "BENCHMARK_SERVE_PORT", "BENCHMARK_SERVE_API_KEY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("benchmark.node.together.CHECK_S", 0.01)
    own: dict[str, Any] = {"benchmark_endpoint_start": "", "benchmark_endpoint_model": ""}
    own |= {"benchmark_engine": "simulated", "benchmark_engine_options": {"break_at": 0} if breaks else {}}
    asked, said = request(tmp_path, **own), list[str]()
    assert asked.serves is not None
    port, url = asked.serves.port, asked.serves.url

    def lead() -> None:
        wait(tmp_path / LISTENS)
        put(tmp_path, LOAD, 1)
        wait(tmp_path / READY)
        put(tmp_path, GO, time.time_ns())
        body = {"model": asked.settings.benchmark_model, "stream": True, "return_token_ids": True, "seed": 3}
        body |= {"max_tokens": 8, "min_tokens": 8, "messages": [{"role": "user", "content": "Why?"}]}
        whole = Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Authorization": f"Bearer {KEY}"})
        try:
            said.append(urlopen(whole, timeout=60).read().decode())
        except HTTPError as error:
            said.append(error.read().decode())
        if not breaks:
            put(tmp_path, WINDOWS, "[]")

    leader = threading.Thread(target=lead, daemon=True)
    leader.start()
    if breaks:
        with pytest.raises(EngineBroken, match="The simulated engine is set to break"):
            run(asked)
    else:
        result = run(asked)
        assert result.status == "complete"
        assert result.engine is not None
        assert result.engine.simulated
        assert result.engine.details["asks_for_key"] is True
        assert json.loads((tmp_path / SERVES).read_text())["url"] == url
    leader.join(60)
    assert ("set to break" in said[0]) == breaks
    assert ('"token_ids":[3]' in said[0]) != breaks
    with socket.create_server((HOST, port)):
        pass  # nothing listens there any more


def test_a_wrong_key_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BENCHMARK_SERVE_ADDRESS", "BENCHMARK_SERVE_PORT", "BENCHMARK_SERVE_API_KEY", "no_proxy"):
        monkeypatch.setenv(name, "")
    asked = request(tmp_path, key="another-one")
    leading(tmp_path, measured=0)
    with pytest.raises(SetupError) as caught:
        run(asked)
    (path,) = tmp_path.glob("mlperf_datacenter_*.json")
    result = NodeResult.model_validate_json(path.read_text())
    assert result.status == "failed"
    assert str(caught.value) == result.error
    assert "401" in str(caught.value)
    assert "Make it require the run's key, $BENCHMARK_SERVE_API_KEY, and accept no other." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_a_server_that_died_at_the_very_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver may end for want of servers before anybody looks again."""
    for name in ("BENCHMARK_SERVE_ADDRESS", "BENCHMARK_SERVE_PORT", "BENCHMARK_SERVE_API_KEY", "no_proxy"):
        monkeypatch.setenv(name, "")
    # Nobody looks by himself.
    monkeypatch.setattr("benchmark.node.together.CHECK_S", 60)
    monkeypatch.setattr("benchmark.node.serving.client.WATCH_S", 60)
    asked = request(tmp_path)

    def lead() -> None:
        wait(tmp_path / LISTENS)
        put(tmp_path, LOAD, 1)
        wait(tmp_path / READY)
        put(tmp_path, GO, time.time_ns())
        time.sleep(0.3)
        os.kill(int((tmp_path / f"served-{HOST}").read_text().split()[0]), signal.SIGKILL)
        time.sleep(0.5)
        put(tmp_path, WINDOWS, "[]")

    leader = threading.Thread(target=lead, daemon=True)
    leader.start()
    with pytest.raises(EngineBroken, match="was ended by signal 9"):
        run(asked)
    leader.join(60)


def test_nobody_says_when_to_load(tmp_path: Path) -> None:
    asked = request(tmp_path)
    with pytest.raises(RunError, match="did the controller stop"):
        run(RunRequest(**{**vars(asked), "wait_s": 1}))


def test_a_query_that_fails_says_on_which_node() -> None:
    servers = tuple(Server(node=node, url=f"http://{node}:8000", replicas=1) for node in ("jw2", "jw3"))
    failed = Sample(prompt_id="a", index=0, issued_ns=1, error="HTTP 503.", server=1)
    assert error_of(failed, servers) == "jw3: HTTP 503."
    assert error_of(failed, ()) == "HTTP 503."
