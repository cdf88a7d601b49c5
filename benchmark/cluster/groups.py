"""Groups of nodes that serve one copy of a model together (`benchmark_group`): their nodes, and whether they fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType

from benchmark.cluster.names import some
from benchmark.cluster.one_system import link_local, places_of
from benchmark.fleet.rendezvous import patience_s, repeats_s
from benchmark.provisioned import ENGINES
from benchmark.provisioned_engine import ProvisionedEngine
from benchmark.records import GroupPart, RunRecord
from benchmark.settings import SYSTEM_WIDE, ResolvedSettings
from benchmark.words import plural

# Settings that must be equal in a group, besides those that must be equal in a system.
GROUP_WIDE = (
    *SYSTEM_WIDE,
    "benchmark_engine_options",
    "benchmark_device",
    "benchmark_timeout_s",
    "benchmark_cost_per_gpu_hour",
)


def groups_of(resolved: Mapping[str, ResolvedSettings]) -> dict[str, tuple[str, ...]]:
    """Return the nodes of each group, in the order of the inventory: the first is the head."""
    found: dict[str, tuple[str, ...]] = {}
    for node, asked in resolved.items():
        if name := asked.settings.benchmark_group:
            found[name] = (*found.get(name, ()), node)
    return found


def rows_of(run: RunRecord) -> dict[str, tuple[str, ...]]:
    """Return what a run's figures are of, by name: each single node, and each group with its nodes."""
    groups = groups_of(run.nodes)
    alone = {node: (node,) for node, asked in run.nodes.items() if not asked.settings.benchmark_group}
    return {**alone, **groups}


def as_rows(run: RunRecord) -> RunRecord:
    """Return the run as if each of its groups were one node with its head's order: this is what its figures are of."""
    rows = rows_of(run)
    if len(rows) == len(run.nodes):
        return run
    heads = {nodes[0]: name for name, nodes in rows.items()}
    attempts = tuple(
        attempt.model_copy(update={"nodes": tuple(heads[node] for node in attempt.nodes if node in heads)})
        for attempt in run.attempts
    )
    return run.model_copy(
        update={"nodes": {name: run.nodes[nodes[0]] for name, nodes in rows.items()}, "attempts": attempts}
    )


def parts_of(resolved: Mapping[str, ResolvedSettings], hosts: Mapping[str, str]) -> dict[str, GroupPart]:
    """Return each node's part in its group; nodes without a group are left out."""
    place_of = {place.node: place for place in places_of(resolved, hosts)}
    return {
        node: GroupPart(name=name, rank=rank, places=tuple(place_of[one] for one in nodes))
        for name, nodes in groups_of(resolved).items()
        for rank, node in enumerate(nodes)
    }


def limit_of_member_s(resolved: Collection[ResolvedSettings]) -> int:
    """Return the time limit, in seconds, of a node that computes for the head of its group until the head has ended."""
    measures_s = max(asked.settings.benchmark_timeout_s for asked in resolved)
    return 2 * (patience_s(resolved) or 0) + measures_s + repeats_s(resolved)


def gpus_of_part(
    engine: ProvisionedEngine,
    asked: ResolvedSettings,
    all_nodes: Mapping[str, ResolvedSettings],
    left_out: Mapping[str, object] = MappingProxyType({}),
) -> int:
    """Return how many of a node's GPUs one copy of the model uses: all of the copy's, or the node's share in a group.

    `left_out`: see `group_problems`.
    """
    group = asked.settings.benchmark_group
    nodes = len(groups_of(all_nodes).get(group, ())) + sum(bool(group) and one == group for one in left_out.values())
    return max(1, engine.check_options(asked.profile.engine_options).gpus_of_a_copy // max(1, nodes))


def group_problems(
    resolved: Mapping[str, ResolvedSettings],
    hosts: Mapping[str, str],
    left_out: Mapping[str, object] = MappingProxyType({}),
) -> Iterator[str]:
    """Yield a sentence for each problem of the nodes' groups.

    `left_out`: the nodes that --limit leaves out, each with its benchmark_group. A group without them would be another
    copy, on fewer GPUs.
    """
    for name, nodes in groups_of(resolved).items():
        head = resolved[nodes[0]]
        if out := [node for node, group in left_out.items() if group == name]:
            yield (
                f"--limit splits the group {name}: it names {some(nodes)} and leaves out {some(out)}. Name all of its "
                "nodes, or none."
            )
            continue
        if len(nodes) == 1:
            yield f"The group {name} has one node, {nodes[0]}, and needs two or more: set it on other nodes too."
            continue
        if name in resolved:
            yield f"benchmark_group is {name} [{some(nodes)}], and a node has this name too: rename the group."
        for setting in GROUP_WIDE:
            values = {repr(getattr(resolved[node].settings, setting)) for node in nodes}
            if len(values) > 1:
                yield (
                    f"{setting} differs within the group {name} [{some(nodes)}], whose nodes serve one copy of the "
                    f"model: {'; '.join(sorted(values))}."
                )
        yield from _places(name, resolved, nodes, hosts)
        yield from _spread(name, len(nodes), head)


def _places(
    name: str, resolved: Mapping[str, ResolvedSettings], nodes: Sequence[str], hosts: Mapping[str, str]
) -> Iterator[str]:
    places = places_of({node: resolved[node] for node in nodes}, hosts)
    yield from link_local(places)
    if len({(place.host, place.port) for place in places}) < len(places):
        yield (
            f"Nodes of the group {name} [{some(nodes)}] have the same address, {places[0].host} port {places[0].port}: "
            "set benchmark_serve_address or benchmark_serve_port of each."
        )


def _spread(name: str, nodes: int, asked: ResolvedSettings) -> Iterator[str]:
    """Yield a sentence if one copy cannot be spread evenly over the nodes."""
    engine = ENGINES.get(asked.profile.engine)
    if engine is None or not engine.spreads:
        return  # reported for the engine
    spread = engine.check_options(asked.profile.engine_options).gpus_of_a_copy
    if spread % nodes or (asked.settings.benchmark_device == "cpu" and spread != nodes):
        yield (
            f"The group {name} has {plural(nodes, 'node')}, and one copy of the model uses {plural(spread, 'GPU')} "
            f"(tensor_parallel_size x pipeline_parallel_size): set benchmark_engine_options to tensor_parallel_size: "
            f"the GPUs of one node, and pipeline_parallel_size: {nodes}."
        )
