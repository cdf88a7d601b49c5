"""Ports are held for servers that are yet to be started, tried from elsewhere, and who has taken one is named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from benchmark.errors import SetupError
from benchmark.node.ports import hold, unreached
from benchmark.records import ServerPlace
from tests.unit.node.test_system import HOST, free_port

WITHOUT_IPV6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")

LOOPBACKS = [
    HOST,
    pytest.param("::1", marks=pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6")),
]


@pytest.mark.parametrize("host", [HOST, pytest.param("::1", marks=WITHOUT_IPV6)])
def test_ports_are_held_and_tried(host: str) -> None:
    free, held = free_port(), ServerPlace(node="jw2", host=host, port=free_port())
    nowhere = ServerPlace(node="jw3", host=host, port=free)
    with hold(held):
        assert unreached([held, nowhere]) == {"jw3": "connection refused"}


@pytest.mark.parametrize("at", [HOST, "0.0.0.0", pytest.param("::", marks=WITHOUT_IPV6)])
def test_who_listens_there_already_is_named(at: str) -> None:
    """Also where it listens at every address."""
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with socket.create_server((at, 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError) as caught:
            hold(ServerPlace(node="jw2", host=HOST, port=port))
    assert str(caught.value).startswith(f"No server can listen on {HOST} port {port}: process {os.getpid()} (")
    assert str(caught.value).endswith(") listens there: end it, or set benchmark_serve_port.")


def test_addresses_that_are_none() -> None:
    free = free_port()
    with pytest.raises(SetupError, match="it is not an address of this node: set benchmark_serve_address to one"):
        hold(ServerPlace(node="jw2", host="192.0.2.1", port=free))
    with pytest.raises(SetupError, match="this node cannot resolve no-such-host: set"):
        hold(ServerPlace(node="jw2", host="no-such-host", port=free))
    assert unreached([ServerPlace(node="jw4", host="no-such-host", port=free)]) == {
        "jw4": "no-such-host cannot be resolved"
    }
