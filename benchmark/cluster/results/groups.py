"""Read the files of a run's rows: single nodes, and groups of nodes that served one copy of a model together.

A group's figures are those of its head, which ran the queries. GPUs, energy and telemetry are of all its nodes; GPUs
are numbered consecutively, the head's first. A group counts if each of its nodes completed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmark import metrics
from benchmark.cluster.groups import rows_of
from benchmark.cluster.names import natural
from benchmark.cluster.results.load import LoadedNode, NodeFiles, one_line, read_failure
from benchmark.cluster.results.load_many import load_nodes
from benchmark.cluster.results.system import result_of_server
from benchmark.errors import InputError
from benchmark.records import Energy, Environment, Failure, Metrics, NodeResult, RunRecord, Slo, Telemetry
from benchmark.rundir import FAILURE, NODES


def load_rows(
    run_dir: Path, run: RunRecord, slo: Slo | None = None, only: Iterable[str] | None = None
) -> tuple[LoadedNode, ...]:
    """Return what the files of each row say, in natural order: of all rows, or `only` those with these names.

    Never raises because of their content.
    """
    rows = rows_of(run)
    names = sorted(rows if only is None else only, key=natural)
    heads = load_nodes(run_dir, run, [rows[name][0] for name in names], slo)
    return tuple(
        head if len(rows[name]) == 1 else _joined(name, head, [_member(run_dir, run, one) for one in rows[name][1:]])
        for name, head in zip(names, heads, strict=True)
    )


def _member(run_dir: Path, run: RunRecord, name: str) -> LoadedNode:
    """Return what the files of a node other than the head say: it has no samples of its own."""
    directory = run_dir / NODES / name
    files = NodeFiles(directory, run, name, None, run_dir)
    failure = result = None
    try:
        failure = read_failure(directory / FAILURE, name)
        result = result_of_server(directory, run, name)
    except InputError as error:
        return LoadedNode(name, failure=failure, refused=files.tell(error), problems=tuple(files.problems))
    return LoadedNode(name, result, failure=failure, problems=tuple(files.problems))


def _joined(name: str, head: LoadedNode, others: Sequence[LoadedNode]) -> LoadedNode:
    """Return a group as if it were one node."""
    nodes = (head, *others)
    problems = tuple(problem for node in nodes for problem in node.problems)
    here = replace(head, node=name, files_of=head.node, problems=problems)
    if reasons := _reasons(nodes):
        result = head.result if head.result and head.result.status != "complete" else None
        stage = next((node.failure.stage for node in nodes if node.failure), "benchmark")
        if result is not None and not any(node is head for node, _ in reasons):
            # Its own report is only a consequence of the other node's end.
            result = result.model_copy(update={"error": None})
        of: dict[str, list[str]] = {}
        for node, reason in reasons:
            of.setdefault(reason, []).append(node.node)
        words = "\n".join(f"{', '.join(names)}: {reason}" for reason, names in of.items())
        return replace(here, result=result, refused=None, failure=Failure(node=name, stage=stage, reason=words[:4000]))
    results = [node.result for node in others if node.result]
    if head.result is None or len(results) < len(others):
        return replace(here, result=None)
    if wrong := _too_many([head.result, *results]):
        return replace(here, result=None, refused=wrong, problems=(*problems, f"{name}: {wrong}"))
    later = tuple(
        replace(one, result=_result(one.result, results, number, one.metrics))
        for number, one in enumerate(head.later, start=1)
    )
    return replace(here, result=_result(head.result, results, 0, head.metrics), later=later)


def _too_many(results: Sequence[NodeResult]) -> str:
    """Return a problem if the head claims more GPUs than the nodes have, else an empty text."""
    engine, gpus = results[0].engine, sum(len(one.environment.gpus) for one in results if one.environment)
    on_gpus = results[0].resolved.settings.benchmark_device == "cuda"
    too_many = on_gpus and engine is not None and not engine.simulated and engine.replicas > gpus
    return f"its head claims {engine.replicas} replicas on {gpus} GPUs." if engine and too_many else ""


def _reasons(nodes: Sequence[LoadedNode]) -> list[tuple[LoadedNode, str]]:
    """Return why nodes of a group failed, without nodes that were only ended because another one failed."""
    found = [(node, _reason(node)) for node in nodes]
    found = [(node, reason) for node, reason in found if reason]
    return [
        (node, reason)
        for node, reason in found
        if not any(other is not node and said != reason and said in reason for other, said in found)
    ]


def _reason(node: LoadedNode) -> str:
    if node.refused:
        return f"Refused: {node.refused}"
    if node.failure is not None:
        return one_line(node.failure).removeprefix(f"{node.failure.stage}: ")
    return "" if node.counted else (node.result.error or "") if node.result else ""


def _result(head: NodeResult, others: Sequence[NodeResult], number: int, measured: Metrics | None) -> NodeResult:
    """Return the head's result of a repeat, from 0, merged with that of the other nodes."""
    # Complete results have one each.
    environments = [one.environment for one in (head, *others) if one.environment]
    watched = [one.served[number].telemetry if number < len(one.served) else None for one in others]
    telemetry = None if head.telemetry is None else _telemetry(head.telemetry, watched, environments, measured)
    return head.model_copy(update={"environment": _environment(environments), "telemetry": telemetry})


def _environment(each: Sequence[Environment]) -> Environment:
    gpus = tuple(
        gpu.model_copy(update={"index": first + gpu.index})
        for one, first in zip(each, _firsts(each), strict=True)
        for gpu in one.gpus
    )
    return each[0].model_copy(update={"gpus": gpus})


def _firsts(each: Sequence[Environment]) -> list[int]:
    """Return the number of each node's first GPU."""
    counts = [max((gpu.index + 1 for gpu in one.gpus), default=0) for one in each]
    return [sum(counts[:place]) for place in range(len(counts))]


def _telemetry(
    head: Telemetry, others: Sequence[Telemetry | None], environments: Sequence[Environment], measured: Metrics | None
) -> Telemetry:
    """Return the telemetry of all nodes: GPUs in sequence, memory and energy summed.

    Without the energy of one node there is none: a part would be taken for the whole.
    """
    known = [head, *(one for one in others if one is not None)]
    gpus = tuple(
        gpu.model_copy(update={"index": first + gpu.index})
        for one, first in zip([head, *others], _firsts(environments), strict=True)
        for gpu in (one.gpus if one else ())
    )
    cpu = [one.cpu_percent for one in known if one.cpu_percent is not None]
    most = [one.cpu_percent_max for one in known if one.cpu_percent_max is not None]
    notes = [one.note for one in known if one.note]
    if len(known) <= len(others):
        notes.append("not all nodes of the group were monitored.")
    return head.model_copy(
        update={
            "gpus": gpus,
            "cost_percent": max(one.cost_percent for one in known),
            "cpu_percent": math.fsum(cpu) / len(cpu) if cpu else None,
            "cpu_percent_max": max(most, default=None),
            "memory_mib_max": sum(one.memory_mib_max or 0 for one in known) or None,
            "energy": _energy([one.energy if one else None for one in (head, *others)], measured),
            "note": "; ".join(dict.fromkeys(notes))[:4000],
        }
    )


def _energy(each: Sequence[Energy | None], measured: Metrics | None) -> Energy | None:
    known = [one for one in each if one is not None]
    if len(known) < len(each):
        return None
    joules = math.fsum(one.joules for one in known)
    idle = [one.idle_w for one in known if one.idle_w is not None]
    ratios = metrics.per_joule(joules, [measured] if measured else [])
    whole = {"joules": joules, "idle_w": math.fsum(idle) if len(idle) == len(known) else None}
    return known[0].model_copy(update={**whole, **ratios})
