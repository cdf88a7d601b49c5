"""What there has to be before anything is measured."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest

from benchmark.errors import InputError, SetupError
from benchmark.node.engines.endpoint import Engine
from benchmark.node.interfaces import EngineBroken
from benchmark.settings import Settings
from tests.openai_server import OpenAIServer, Refusal, parts
from tests.unit.node.endpoint.asked import SIX, Loaded, ask


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
    with pytest.raises(SetupError, match="lists no models: set benchmark_endpoint_model"):
        loaded(server.url, benchmark_endpoint_model="")


def test_a_server_is_not_started_where_another_one_answers(
    server: OpenAIServer, loaded: Loaded, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=r"answers at .* before benchmark_endpoint_start has run"):
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


def test_how_a_server_ended_is_told_also_while_parts_of_it_end(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of several processes refuses connections for seconds before its last one has ended."""
    monkeypatch.setattr(Engine, "directory", tmp_path)
    with OpenAIServer() as gone:
        port = gone.port
    program = (
        "import os, sys, time; from tests.openai_server import OpenAIServer\n"
        f"with OpenAIServer(port={port}):\n"
        f"    open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    )
    slow = "trap '' TERM; sleep 3 & while kill -0 $!; do wait; done"
    start = f"({slow}) 2>/dev/null & exec {shlex.join([sys.executable, '-c', program])}"
    engine = loaded(f"http://127.0.0.1:{port}", benchmark_endpoint_start=start)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    # A connection may break off before the next ones are refused.
    with pytest.raises(EngineBroken, match="was ended by signal 9"):
        [ask(engine) for _ in range(10)]
    with pytest.raises(EngineBroken, match="was ended by signal 9"):
        engine.check()


def test_options_that_the_engine_does_not_have_are_refused() -> None:
    with pytest.raises(InputError, match="has no options"):
        Engine(Settings(), SIX, {"batch": 4}).load()


def test_replicas_are_what_the_user_says(server: OpenAIServer, loaded: Loaded) -> None:
    engine = loaded(server.url, benchmark_replicas=4)
    assert engine.info.replicas == 4
