"""A client whose node runs out of something, in processes of their own with real limits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.raw_server import RawServer, polite

CHECKOUT = Path(__file__).parents[4]

BEGIN = """
import asyncio, json, os, resource, socket, sys, threading
from benchmark.node.interfaces import EngineBroken, Prompt, Query
from benchmark.node.serving.client import Client, Request
from benchmark.node.serving.slots import raise_handle_limit
sys.path.insert(0, os.getcwd())
from tests.raw_server import RawServer, polite

class Heard:
    def __init__(self):
        self.errors, self.answers, self.ended = [], 0, threading.Semaphore(0)
    def first_token(self, query, at_ns, token_id=None): pass
    def completed(self, query, at_ns, answer):
        self.answers += 1
        self.ended.release()
    def failed(self, query, error):
        self.errors.append(error)
        self.ended.release()

def ask(client, count):
    heard = Heard()
    for index in range(count):
        client.submit(Query(index, Prompt("p", "text"), 1), heard, Request("/v1/chat/completions", {}))
    for _ in range(count):
        assert heard.ended.acquire(timeout=60)
    return heard

def tell(client, heard, **more):
    print(json.dumps({"answers": heard.answers, "errors": sorted(set(heard.errors)), "failed": len(heard.errors),
        "broken": client.broken, **client.end_window(), **more}, default=str), flush=True)
    os._exit(0)
"""


def reported(code: str, *words: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run the code in a process and return what it told."""
    done = subprocess.run(
        [*before, sys.executable, "-c", BEGIN + code, *words],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


@pytest.fixture
def server() -> Iterator[RawServer]:
    """A server in this process, whose file handles are not the client's."""
    with RawServer(polite) as running:
        yield running


def test_more_queries_than_file_handles_wait_and_none_is_lost(server: RawServer) -> None:
    found = reported(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 256))\n"
        "raise_handle_limit()\n"
        "client = Client([sys.argv[1]], None, 60, lambda: None)\n"
        "tell(client, ask(client, 600), soft=resource.getrlimit(resource.RLIMIT_NOFILE)[0])",
        server.url,
    )
    assert (found["answers"], found["failed"], found["broken"]) == (600, 0, None)
    assert found["soft"] == 256
    assert 100 < found["max_connections"] < 256
    # Fewer wait where answers come before the last query is asked.
    assert 0 < found["waited"] <= 600 - found["max_connections"]
    assert server.opened <= 600


def test_missing_file_handles_fail_queries_not_the_engine(server: RawServer) -> None:
    found = reported(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "client = Client([sys.argv[1]], None, 60, lambda: None)\n"
        "taken = []\n"
        "try:\n"
        "    while True: taken.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "failed = ask(client, 20)\n"
        "for one in taken: os.close(one)\n"
        "heard = ask(client, 5)\n"
        "heard.errors = failed.errors\n"
        "tell(client, heard)",
        server.url,
    )
    assert (found["answers"], found["failed"], found["broken"]) == (5, 20, None)
    assert found["errors"] == [
        "The client on this node, not the server, ran out of file handles for this process: raise the hard limit "
        "(ulimit -Hn; systemd: LimitNOFILE)."
    ]


def test_a_client_that_cannot_even_begin_says_what_is_missing() -> None:
    found = reported(
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "taken = []\n"
        "try:\n"
        "    while True: taken.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "os.close(taken.pop())\n"
        "try: Client(['http://127.0.0.1:1'], None, 60, lambda: None)\n"
        "except Exception as error: print(json.dumps({'kind': type(error).__name__, 'said': str(error)}))",
    )
    assert found["kind"] == "SetupError"
    assert "ran out of file handles for this process" in found["said"]


IN_A_NETWORK = ("unshare", "--map-root-user", "--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh")
FEW_PORTS = """
open('/proc/sys/net/ipv4/ip_local_port_range', 'w').write('40000 40007')
running = RawServer(polite, port=30000)
running.__enter__()
client = Client([running.url], None, 60, lambda: None)
"""


@pytest.fixture
def network() -> None:
    """Skip where a process may have no network of its own."""
    if shutil.which("ip") is None or subprocess.run([*IN_A_NETWORK, "true"], check=False).returncode != 0:
        pytest.skip("network namespaces are not allowed here")


@pytest.mark.usefixtures("network")
def test_more_queries_than_local_ports_wait_and_none_is_lost() -> None:
    found = reported(FEW_PORTS + "tell(client, ask(client, 60))", before=IN_A_NETWORK)
    assert (found["answers"], found["failed"], found["broken"]) == (60, 0, None)
    assert found["max_connections"] == 6
    # The first may be answered before the last are asked.
    assert 0 < found["waited"] <= 54


@pytest.mark.usefixtures("network")
def test_ports_that_others_take_fail_queries_and_not_the_engine() -> None:
    found = reported(
        FEW_PORTS + "client.call(client.get(client.targets[0], '/v1/models'))\n"
        "taken = []\n"
        "try:\n"
        "    while True: taken.append(socket.create_connection(('127.0.0.1', 30000)))\n"
        "except OSError: pass\n"
        "tell(client, ask(client, 20))",
        before=IN_A_NETWORK,
    )
    assert (found["answers"], found["failed"], found["broken"]) == (0, 20, None)
    (sentence,) = found["errors"]
    assert "ran out of local ports for connections to the server: widen net.ipv4.ip_local_port_range" in sentence


def test_missing_threads_fail_queries_not_the_engine(server: RawServer) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user's process is root's to make")
    # Threads are counted for all of a user's processes: this user has no other.
    found = reported(
        "import concurrent.futures.thread, encodings.idna  # which that user may not read\n"
        "client = Client([f'http://localhost:{sys.argv[1]}'], None, 60, lambda: None)\n"
        "os.setgroups([])\n"
        "os.setresuid(64999, 64999, 64999)\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\n"
        "tell(client, ask(client, 5))",
        str(server.port),
    )
    assert (found["answers"], found["failed"], found["broken"]) == (0, 5, None)
    (sentence,) = found["errors"]
    assert "ran out of threads: raise this user's limit (ulimit -u" in sentence
