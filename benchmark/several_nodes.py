"""What settings and profile cannot do together where several nodes are one system, or one copy of a model.

What nodes cannot be beside each other is found in `cluster/one_system.py` and `cluster/groups.py`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from benchmark.profiles import Profile
from benchmark.provisioned import ENGINES
from benchmark.served import ENDPOINT
from benchmark.settings import Settings


def place_problems(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield that a server cannot be reached at the address where it is to listen, or could be at others too."""
    address = settings.benchmark_serve_address
    try:
        every = ipaddress.ip_address(address).is_unspecified
    except ValueError:  # a name
        return
    if every:
        yield (
            f"benchmark_serve_address is {address}, which is every address of the node: name the one at which the "
            "others reach it, and it listens nowhere else."
        )


def system_problems(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield what cannot be where all nodes are one system, which serves and is asked by one driver."""
    if settings.benchmark_system != "cluster":
        if settings.benchmark_driver:
            yield "benchmark_driver is set, and benchmark_system is node: each node measures itself. Set it to cluster."
        return
    before = "benchmark_system is cluster, and "
    if profile.engine == ENDPOINT and (settings.benchmark_endpoint_urls or not settings.benchmark_endpoint_start):
        yield (
            f"{before}each node starts its own server: set benchmark_endpoint_start, with $BENCHMARK_SERVE_ADDRESS, "
            "$BENCHMARK_SERVE_PORT and $BENCHMARK_SERVE_API_KEY in it, and leave benchmark_endpoint_urls empty."
        )
    if not profile.measures_queries:
        yield f"{before}the profile {profile.name} measures no queries: take another, or set benchmark_system to node."
    if profile.sweep is not None:
        yield f"{before}the profile {profile.name} is a sweep: take one that measures under one load."
    if settings.benchmark_solo_first:
        yield f"{before}no node of one system measures alone: leave benchmark_solo_first."
    if not settings.benchmark_sync_start:
        yield f"{before}its parts begin together by nature: leave benchmark_sync_start at true."


def group_problems(settings: Settings, profile: Profile) -> Iterator[str]:
    """Yield what cannot be where several nodes serve one copy of the model."""
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
        yield f"{before}the profile {profile.name} measures no queries: take another, or leave benchmark_group out."
    if profile.sweep is not None:
        yield f"{before}the profile {profile.name} is a sweep: take one that measures under one load."
    if settings.benchmark_solo_first:
        yield f"{before}its nodes cannot take turns: leave benchmark_solo_first."
    if not settings.benchmark_sync_start:
        yield f"{before}its nodes begin together by nature: leave benchmark_sync_start at true."
