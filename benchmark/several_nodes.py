"""Combinations of settings and profile that cannot work if several nodes are one system, or one copy of a model.

Conflicts between nodes are found in `cluster/one_system.py` and `cluster/groups.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from benchmark.profiles import Profile
from benchmark.provisioned import ENGINES
from benchmark.served import ENDPOINT
from benchmark.settings import Settings


def place_problems(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield a sentence if a server's address is not reachable, or not its only one."""
    address = settings.benchmark_serve_address
    try:
        every = ipaddress.ip_address(address).is_unspecified
    except ValueError:  # a name
        return
    if every:
        yield (
            f"benchmark_serve_address is {address}, which means every address of the node: set the one at which the "
            "others reach it; the server listens on no other."
        )


def system_problems(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield what cannot work if all nodes are one system with one driver."""
    if settings.benchmark_system != "cluster":
        if settings.benchmark_driver:
            yield "benchmark_driver is set, but benchmark_system is node: each node measures itself. Set it to cluster."
        return
    before = "benchmark_system is cluster, and "
    if profile.engine == ENDPOINT and (settings.benchmark_endpoint_urls or not settings.benchmark_endpoint_start):
        yield (
            f"{before}each node starts its own server: set benchmark_endpoint_start, with $BENCHMARK_SERVE_ADDRESS, "
            "$BENCHMARK_SERVE_PORT and $BENCHMARK_SERVE_API_KEY in it, and leave benchmark_endpoint_urls empty."
        )
    if not profile.measures_queries:
        yield f"{before}the profile {profile.name} measures no queries: use another, or set benchmark_system to node."
    if profile.sweep is not None:
        yield f"{before}the profile {profile.name} is a sweep: use one that measures under one load."
    if settings.benchmark_solo_first:
        yield f"{before}no node of a system measures alone: leave benchmark_solo_first out."
    if not settings.benchmark_sync_start:
        yield f"{before}its nodes always start together: leave benchmark_sync_start at true."


def group_problems(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield what cannot work if several nodes serve one copy of the model."""
    if not settings.benchmark_group:
        return
    before = f"benchmark_group is {settings.benchmark_group}, and "
    spreading = [name for name, engine in ENGINES.items() if engine.spreads]
    if profile.engine not in spreading:
        yield (
            f"{before}the engine {profile.engine} does not spread a model over nodes: set benchmark_engine to "
            f"{' or '.join(spreading)}."
        )
    if settings.benchmark_system == "cluster":
        yield f"{before}benchmark_system is cluster, whose nodes have a copy each: leave one of them out."
    if settings.benchmark_replicas != "auto":
        yield f"{before}its nodes serve one copy: leave benchmark_replicas at auto."
    if not profile.measures_queries:
        yield f"{before}the profile {profile.name} measures no queries: use another, or leave benchmark_group out."
    if profile.sweep is not None:
        yield f"{before}the profile {profile.name} is a sweep: use one that measures under one load."
    if settings.benchmark_solo_first:
        yield f"{before}its nodes cannot take turns: leave benchmark_solo_first out."
    if not settings.benchmark_sync_start:
        yield f"{before}its nodes always start together: leave benchmark_sync_start at true."
