"""Whether nodes can be one system, and what is asked of its driver: all of it before any node is touched."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.cluster.one_system import system_of, system_problems
from benchmark.errors import InputError
from benchmark.resolve import resolve, resolve_nodes
from benchmark.settings import ResolvedSettings

CLUSTER: dict[str, Any] = {
    "benchmark_profile": "mlperf-server",
    "benchmark_system": "cluster",
    "benchmark_engine": "vllm",
    "benchmark_driver": "jw2",
    "benchmark_target_qps": 2,
}
HOSTS = {"jw2": "10.0.0.2", "jw3": "10.0.0.3"}


def nodes(**others: Any) -> dict[str, ResolvedSettings]:
    """Return two nodes as one system; `others`: what the second has otherwise."""
    return resolve_nodes({"jw2": dict(CLUSTER), "jw3": {**CLUSTER, **others}})


def test_the_driver_asks_every_server() -> None:
    system = system_of(nodes(benchmark_serve_address="fd00::3", benchmark_serve_port=9000), HOSTS)
    assert system is not None
    asked = system.resolved
    assert asked.settings.benchmark_endpoint_urls == ["http://10.0.0.2:8000", "http://[fd00::3]:9000"]
    assert (asked.profile.engine, asked.settings.benchmark_device) == ("endpoint", "cpu")
    assert asked.settings.benchmark_endpoint_model == asked.settings.benchmark_model
    assert asked.profile.limits == nodes()["jw2"].profile.limits
    assert system_of({"jw2": resolve({})}, HOSTS) is None
    assert not list(system_problems(nodes(), HOSTS))


@pytest.mark.parametrize(
    ("second", "hosts", "problem"),
    [
        ({"benchmark_dtype": "bfloat16"}, HOSTS, "benchmark_dtype differs between the nodes of the system: "),
        ({"benchmark_target_qps": 3}, HOSTS, "benchmark_target_qps differs between the nodes of the system"),
        ({}, {**HOSTS, "jw3": "fe80::3%eth0"}, "jw3 would be reached at fe80::3%eth0, which means something else on"),
        ({}, {"jw2": "login", "jw3": "login"}, "jw2, jw3 would serve at the same address, login port 8000: "),
    ],
)
def test_nodes_that_are_no_system(second: dict[str, Any], hosts: dict[str, str], problem: str) -> None:
    (found,) = system_problems(nodes(**second), hosts)
    assert problem in found


def test_more_nodes_than_there_are() -> None:
    """As where --limit names one of two."""
    (found,) = system_problems(resolve_nodes({"jw2": {**CLUSTER, "benchmark_min_nodes": 2}}), HOSTS)
    assert "benchmark_min_nodes is 2, where 1 node of this play could serve: nothing would be measured." in found


def test_who_drives() -> None:
    elsewhere = resolve_nodes({"jw3": dict(CLUSTER)})
    (found,) = system_problems(elsewhere, HOSTS)
    assert found.startswith("benchmark_driver is jw2, which is no node of this play")
    (found,) = system_problems(resolve_nodes({"jw2": dict(CLUSTER), "driver": dict(CLUSTER)}), HOSTS)
    assert "a node is called driver" in found


@pytest.mark.parametrize("address", ["", "10.0.0.2", "fd00::2", "jw2", "gpu-2.example.com", "2b.example.com"])
def test_where_a_server_may_listen(address: str) -> None:
    assert resolve({**CLUSTER, "benchmark_serve_address": address}).settings.benchmark_serve_address == address


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"benchmark_engine": "endpoint", "benchmark_endpoint_urls": ["http://10.0.0.9:8000"]},
            "each node starts its own server: set benchmark_endpoint_start",
        ),
        ({"benchmark_profile": "sweep"}, "is a sweep"),
        ({"benchmark_accuracy": "only"}, "measures no queries"),
        ({"benchmark_solo_first": True}, "leave benchmark_solo_first"),
        ({"benchmark_sync_start": False}, "leave benchmark_sync_start at true"),
        ({"benchmark_serve_port": 70000}, "benchmark_serve_port"),
        ({"benchmark_serve_address": "10.0.0.2; true"}, "benchmark_serve_address"),
        (
            {"benchmark_serve_address": "[fd00::2]"},
            "'[fd00::2]': neither a name nor a host's address, which is written in full, IPv6 without brackets",
        ),
        # The resolver takes a number for an address: these would be 0.0.0.0.
        *(
            ({"benchmark_serve_address": wrong}, f"benchmark_serve_address is '{wrong}': neither a name nor a host's")
            for wrong in ("0", "0x0", "00.0", "127.1", "10.0.0.2:8000", "224.0.0.1", "255.255.255.255", "fe80::1%eth0")
        ),
        ({"benchmark_serve_address": "0.0.0.0"}, "benchmark_serve_address is 0.0.0.0, which means every address of"),
        ({"benchmark_serve_address": "::"}, "benchmark_serve_address is ::, which means every address of the node"),
        ({"benchmark_system": "node"}, "benchmark_driver is set, but benchmark_system is node"),
    ],
)
def test_what_a_system_cannot_be(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve({**CLUSTER, **changes})
    assert problem in str(caught.value)
