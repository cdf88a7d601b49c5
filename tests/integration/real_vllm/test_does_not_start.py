"""Why real vLLM does not start is reported with the line that says so, and nothing of it is left running."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmark.node.serving.provisioned import free_port
from tests.integration.conftest import Done, Playbooks
from tests.integration.faults.left_over import assert_nothing_runs
from tests.integration.real_vllm.conftest import EAGER, KEPT, SMALL, each_its_own, run
from tests.integration.test_benchmark import start

pytestmark = pytest.mark.timeout(3600)


def reason(done: Done, node: str) -> str:
    """Return why a node failed; its server's log was fetched."""
    assert done.code != 0
    assert (done.run_dir / "nodes" / node / "endpoint.log").stat().st_size
    said: str = done.row(node)["reason"]
    return said


def model_of(real: Playbooks, name: str, **changes: Any) -> dict[str, Any]:
    """Copy the tiny model, change its config.json and return the settings of a node that serves it."""
    directory = real.directory / name
    shutil.copytree(real.directory / "model", directory)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return {"benchmark_model": str(directory)}


def test_an_option_and_an_architecture_that_are_unknown(real: Playbooks) -> None:
    option = {"benchmark_engine_options": {"arguments": [EAGER, "--no-such-word"]}}
    family = model_of(real, "unknown", architectures=["NoSuchForCausalLM"], model_type="no_such")
    done = run(real, "benchmark", inventory=each_its_own(real, jw2=option, jw3=family))
    assert "vLLM ended with exit code 2." in reason(done, "jw2")
    assert "error: unrecognized arguments: --no-such-word" in reason(done, "jw2")
    assert "vLLM ended with exit code 1." in reason(done, "jw3")
    assert "model type `no_such`" in reason(done, "jw3")
    assert_nothing_runs(real.directory)


def test_too_little_memory_and_a_port_that_is_taken(real: Playbooks) -> None:
    greedy = {"benchmark_environment": {**SMALL, "VLLM_CPU_KVCACHE_SPACE": "99999"}}
    with taken_port() as port:
        done = run(real, "benchmark", inventory=each_its_own(real, jw2=greedy, jw3=by_hand(real, port)))
    assert "vLLM ended with exit code 1." in reason(done, "jw2")
    assert "is less than requested memory for kv (99999.0 GiB)" in reason(done, "jw2")
    assert "OSError: [Errno 98] Address already in use" in reason(done, "jw3")
    assert_nothing_runs(real.directory)


@contextmanager
def taken_port() -> Iterator[int]:
    """A port of loopback at which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def by_hand(real: Playbooks, port: int) -> dict[str, Any]:
    """Return the settings of a node whose server a command of the user's own starts, on another port than its URL's.

    What answers at the URL before the command was run is refused by name.
    """
    newest = max(KEPT.glob("vllm*/bin/vllm"), key=lambda program: program.stat().st_mtime)
    words = [str(newest), "serve", f"{real.directory}/model", "--host", "127.0.0.1", "--port", str(port), EAGER]
    return {
        "benchmark_engine": "endpoint",
        "benchmark_engine_options": {},
        "benchmark_endpoint_start": shlex.join(words),
        "benchmark_endpoint_urls": [f"http://127.0.0.1:{free_port()}"],
    }


def test_one_that_is_killed_while_it_loads(real: Playbooks) -> None:
    """On one node the server, on the other the largest of its processes, as the kernel does where memory runs out."""
    nodes = {"jw2": model_of(real, "whole"), "jw3": model_of(real, "part")}
    process = start(real, inventory=each_its_own(real, **nodes))
    for find, name in ((server_of, "whole"), (worker_of, "part")):
        while (found := find(real.directory / name)) is None:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.kill(found.pid, signal.SIGKILL)
    output, _ = process.communicate()
    done = Done(process.returncode, output, (real.results / "latest").resolve())
    assert "vLLM was ended by signal 9" in reason(done, "jw2")
    assert "vLLM ended with exit code 1." in reason(done, "jw3")
    assert "Exception: WorkerProc initialization failed" in reason(done, "jw3")
    assert "one of its processes may have been killed" in reason(done, "jw3")
    assert_nothing_runs(real.directory)


def server_of(model: Path) -> psutil.Process | None:
    """Return the process of `vllm serve` for that model."""
    for one in psutil.process_iter(["cmdline"]):
        words = one.info["cmdline"] or []
        if str(model) in words and "serve" in words and "python" in words[0]:
            return one
    return None


def worker_of(model: Path) -> psutil.Process | None:
    """Return the process that loads the model for `vllm serve`: it names itself so."""
    server = server_of(model)
    parts = server.children(recursive=True) if server else []
    return next((one for one in parts if "VLLM::Worker" in " ".join(one.cmdline())), None)
