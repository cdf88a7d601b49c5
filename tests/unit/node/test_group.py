"""A node of a group before anything is loaded: it listens, says what it has, and tries to reach the others."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from benchmark.errors import SetupError
from benchmark.node.group import INTERFACE_VARIABLES, Meeting, show_the_way
from benchmark.node.lock import Lock
from benchmark.node.request import RunRequest
from benchmark.provisioned import ENGINES
from benchmark.records import GroupMember, GroupPart, ServerPlace
from benchmark.resolve import resolve
from benchmark.rundir import LISTENS, LOAD, TRIED, TRY
from tests.unit.building import HOST, RUN_ID
from tests.unit.node.test_system import free_port, wait

VLLM = ENGINES["vllm"]


def meeting(directory: Path, port: int) -> Meeting:
    resolved = resolve({"benchmark_engine": "vllm", "benchmark_group": "a", "vllm_dir": str(directory)})
    places = tuple(ServerPlace(node=name, host="127.0.0.1", port=port + number) for number, name in enumerate("ab"))
    part = GroupPart(name="a", rank=0, places=places)
    request = RunRequest(RUN_ID, "a", resolved, directory, 60, group=part)
    return Meeting(request, part, Lock(directory / f"{LISTENS}.lock"))


def put(path: Path, text: str) -> None:
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").rename(path)


def test_it_says_whom_it_cannot_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VLLM.address_variable, *INTERFACE_VARIABLES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    port = free_port()
    environment = HOST.model_copy(update={"server_packages": {"vllm": "0.33.0"}, "model_sha256": "ab"})
    meets = threading.Thread(target=meeting(tmp_path, port).run, args=(environment,), daemon=True)
    meets.start()
    wait(tmp_path / LISTENS)
    member = GroupMember.model_validate_json((tmp_path / LISTENS).read_text())
    assert member.software == {"vllm": "0.33.0", "the model": "ab"}
    # It listens at both of its ports; nobody does at the other node's.
    for listening in (port, member.port):
        socket.create_connection(("127.0.0.1", listening), 5).close()
    closed = free_port()
    places = [{"node": "b", "host": "127.0.0.1", "port": number} for number in (member.port, closed)]
    put(tmp_path / TRY, json.dumps(places))
    wait(tmp_path / TRIED)
    assert json.loads((tmp_path / TRIED).read_text()) == {"b": f"port {closed}: connection refused"}
    assert VLLM.address_variable not in os.environ
    put(tmp_path / LOAD, "1")
    meets.join(60)
    assert not meets.is_alive()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)
    assert os.environ[VLLM.address_variable] == "127.0.0.1"
    assert {os.environ[name] for name in INTERFACE_VARIABLES} == {"lo"}


def test_what_the_user_says_of_the_network_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VLLM.address_variable, *INTERFACE_VARIABLES):
        monkeypatch.setenv(name, "mine")
    show_the_way(VLLM, "localhost")
    assert {os.environ[name] for name in (VLLM.address_variable, *INTERFACE_VARIABLES)} == {"mine"}


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"127.0.0.1 port {port}: process {os.getpid()} "):
            meeting(tmp_path, port).run(None)
