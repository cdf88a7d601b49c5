"""Read a stored run's nodes from its cluster result and run.json, never from samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmark.canonical import canonical_sha256
from benchmark.cluster.diagnosis.aspects import ENERGY, REPLAYED
from benchmark.cluster.groups import as_rows
from benchmark.cluster.leader import at_work
from benchmark.cluster.stored.short import in_progress, run_in_short
from benchmark.cluster.stored.states import IN_PROGRESS, INVALID, PARTIAL, UNFINISHED, VALID
from benchmark.errors import InputError
from benchmark.files import read_record
from benchmark.probed import LEAST, figures
from benchmark.profiles import NONE
from benchmark.records import ClusterResult, Controller, Failure, Group, NodeRow, RunInShort, RunRecord
from benchmark.rundir import FAILURE, NODES, RESULT_FILE, RUN_FILE
from benchmark.served import ENDPOINT, in_label
from benchmark.settings import ResolvedSettings
from benchmark.verdict import value_of
from benchmark.words import brief

METRICS = ("qps", "tokens_per_s", "latency_ms.p50", "ttft_ms.p50", "tpot_ms.p50", ENERGY)
KIND = ("profile", "scenario", "model", "engine", "settings")
"""Labels that identify what was measured on a node; `settings`: a hash of everything that matters."""


# States that are not final while the run is in progress.
_OPEN = (UNFINISHED, PARTIAL, "missing", "interrupted", IN_PROGRESS)


@dataclass(frozen=True)
class StoredNode:
    """One node in one run. `kind`: what was measured, by KIND. The comparison key is empty if it was not counted."""

    node: str
    state: str
    stage: str
    reason: str
    kind: tuple[str, ...]
    comparison_key: str
    label: str
    rate: str
    values: dict[str, float]
    """Metric -> value, including probes (`probe.<name>`: the median of the node's GPUs)."""
    units: dict[str, str]
    """For probes: metric -> unit."""

    @property
    def delivered(self) -> bool:
        """Whether its numbers were part of the totals."""
        return self.state in (VALID, INVALID)


@dataclass(frozen=True)
class StoredRun:
    """One run; `content`: its compact form in the index, with groups, kinds, and rows that refer to them."""

    run_id: str
    content: Mapping[str, Any]

    @property
    def created_at(self) -> str:
        """UTC, ISO 8601."""
        return str(self.content["created_at"])

    @property
    def inventory(self) -> Sequence[str]:
        """The nodes of the inventory; empty: unknown."""
        return list(self.content["inventory"])

    @property
    def short(self) -> RunInShort:
        """Its entry in a list of runs, without the report's path."""
        # Identified by its directory's name, as everywhere: a copy may have another run id.
        short = RunInShort.model_validate({**self.content["short"], "run_id": self.run_id})
        return in_progress(short) if self.in_progress else short

    @cached_property
    def in_progress(self) -> bool:
        """Whether its playbook is running on this machine."""
        leader = self.content["leader"]
        return at_work(leader and Controller.model_validate(leader))

    @property
    def names(self) -> list[str]:
        """The nodes of the run."""
        return list(self.content["nodes"])

    def node(self, name: str) -> StoredNode | None:
        """Return a node of the run; None if it is not in the run."""
        row = self.content["nodes"].get(name)
        if row is None:
            return None
        state, stage, reason, kind, group, values, probed = row
        if self.in_progress and state in _OPEN:
            state, stage, reason = IN_PROGRESS, "", ""
        key, label, rate = self.content["groups"][group] if group is not None else ("", "", "")
        known = {metric: value for metric, value in zip(METRICS, values, strict=True) if value is not None}
        probes = [(*self.content["probes"][number], value) for number, value in probed]
        known |= {metric: value for metric, _, value in probes}
        units = {metric: unit for metric, unit, _ in probes}
        asked = tuple(self.content["kinds"][kind])
        return StoredNode(name, state, stage, reason, asked, key, label, rate, known, units)


def read_stored(results: Path, run_id: str) -> dict[str, Any]:
    """Return the `content` of a StoredRun from the run's files. Raises InputError if they cannot be read."""
    directory = results / run_id
    run = as_rows(read_record(directory / RUN_FILE, RunRecord))
    rows: dict[str, NodeRow] = {}
    groups: Sequence[Group] = ()
    result = None
    summary = directory / RESULT_FILE
    partial, unfinished = False, UNFINISHED
    if summary.is_file():
        result = read_record(summary, ClusterResult)
        rows, groups, partial = {row.node: row for row in result.nodes}, result.groups, bool(result.partial)
        unfinished = UNFINISHED if result.in_progress else PARTIAL
    kinds: list[tuple[str, ...]] = []
    keys: list[tuple[str, str, str]] = []
    probes: list[tuple[str, str]] = []
    nodes = {}
    for node, asked in run.nodes.items():
        row = rows.get(node)
        group = None
        measured = row is not None and row.counted and (row.metrics or row.probes)
        if row is not None and measured and row.group is not None and row.group < len(groups):
            group = _place(keys, _key(groups[row.group], row))
        state, stage, reason = _state(directory, node, row)
        state = unfinished if partial and row is not None and not row.counted else state
        values = [None] * len(METRICS) if row is None or group is None else [_value(row, metric) for metric in METRICS]
        probed = [] if row is None or group is None else [
            [_place(probes, (one.metric, one.unit)), one.median]
            for one in figures(row.probes).values() if one.better is not None and one.median > LEAST
        ]  # fmt: skip
        kind = _place(kinds, kind_of(asked, fallback_of(row, groups)))
        nodes[node] = [state, stage, reason, kind, group, values, probed]
    return {
        "created_at": run.created_at,
        "inventory": list(run.inventory),
        "leader": _leader(run),
        "groups": [list(key) for key in keys],
        "kinds": [list(kind) for kind in kinds],
        "probes": [list(probe) for probe in probes],
        "nodes": nodes,
        "short": run_in_short(run, result).model_dump(mode="json", exclude_defaults=True),
    }


def _leader(run: RunRecord) -> dict[str, Any] | None:
    leader = run.attempts[-1].controller if run.attempts else None
    return leader.model_dump(mode="json") if leader else None


def history_key(group: Group, row: NodeRow) -> str:
    """Return the hash of what must be equal for a node's runs to form one series."""
    return canonical_sha256([sorted(group.key.items()), row.gpus, row.rate])[:16]


def fallback_of(row: NodeRow | None, groups: Sequence[Group]) -> str:
    """Return the engine that replaced the profile's own; empty if none did."""
    if row is None or not row.fallback or row.group is None or row.group >= len(groups):
        return ""
    return groups[row.group].key.get("engine", "")


def kind_of(asked: ResolvedSettings, fallback: str = "") -> tuple[str, ...]:
    """Return the values of KIND from a node's order: they are also known for a node that failed.

    A fallback engine makes another kind.
    """
    settings, profile = asked.settings, asked.profile
    scenario = str(profile.scenario_options.get("scenario", profile.scenario))
    if not profile.loads_model:
        asked_of_hardware = [settings.benchmark_device, profile.model_dump(mode="json")]
        return profile.name, scenario, NONE, profile.engine, canonical_sha256(asked_of_hardware)[:8]
    # A server's model is only known from its own report.
    model = settings.benchmark_endpoint_model if profile.engine == ENDPOINT else settings.benchmark_model
    deciding = [
        settings.benchmark_model,
        settings.benchmark_model_revision,
        settings.benchmark_dtype,
        settings.benchmark_device,
        settings.benchmark_dataset_path,
        settings.benchmark_replicas,
        settings.benchmark_endpoint_urls,
        # A schedule's rate decides how long queries wait; in other scenarios it is only a limit.
        settings.benchmark_target_qps if profile.scheduled and not profile.replays else None,
        profile.model_dump(mode="json"),
        *([settings.benchmark_system] if settings.benchmark_system != "node" else []),
    ]
    return profile.name, scenario, model, fallback or profile.engine, canonical_sha256(deciding)[:8]


def _state(directory: Path, node: str, row: NodeRow | None) -> tuple[str, str, str]:
    """Return how a node ended, in which stage, and why in a line; the last two are empty for a valid node."""
    failure = None
    if row is None or not (row.counted or row.stage):
        with suppress(InputError):
            failure = read_record(directory / NODES / node / FAILURE, Failure)
    if row is None:
        return UNFINISHED, failure.stage if failure else "", brief(failure.reason if failure else "")
    if row.counted:
        valid = row.verdict is not None and row.verdict.valid
        return (VALID, "", "") if valid else (INVALID, "", brief(row.reason))
    return row.status, row.stage or (failure.stage if failure else ""), brief(row.reason)


def _key(group: Group, row: NodeRow) -> tuple[str, str, str]:
    key = group.key
    parts = [
        key.get("profile", ""),
        *(in_label(name, key.get(name, "")) for name in ("dtype", "engine")),
        row.gpu or "",
        "its part of one system" if key.get("system") else "",
    ]
    rate = f"at {row.rate} queries/s" if row.rate and row.rate not in ("searched", REPLAYED) else ""
    label = ", ".join(part for part in (*parts, rate) if part)[:4000]
    return history_key(group, row), label, row.rate


def _value(row: NodeRow, metric: str) -> float | None:
    if metric == ENERGY:
        value = row.energy.tokens_per_joule if row.energy else None
    else:
        value = value_of(row.metrics, metric) if row.metrics else None
    return float(value) if value is not None and value > 0 else None


def _place(known: list[Any], value: Any) -> int:
    if value not in known:
        known.append(value)
    return known.index(value)
