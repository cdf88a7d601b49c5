"""The parts of a submission, and the runs that they are from: performance, accuracy and audit by node and scenario."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmark.cluster.arithmetic import comparison_key
from benchmark.cluster.groups import groups_of
from benchmark.cluster.names import natural, some
from benchmark.cluster.results.load import load_node, one_line
from benchmark.cluster.submission.rules import INTERACTIVE, OF_MODEL, Benchmark
from benchmark.errors import InputError
from benchmark.records import Environment, LoadGenResult, NodeResult
from benchmark.rundir import NODES, read_run

# What the nodes of a submission must have in common: hardware and model.
SAME = ("hardware", "dtype", "device", "model", "revision", "engine", "served")


@dataclass(frozen=True)
class Part:
    """A node's results of one scenario from one run, after the checks of its files."""

    run_id: str
    node: str
    benchmark: Benchmark
    scenario: str
    directory: Path
    result: NodeResult
    same: dict[str, str]
    """What must be equal in all parts of a submission, by its name."""

    @property
    def environment(self) -> Environment:
        """The node's environment."""
        if self.result.environment is None:
            raise ValueError(f"{self.node} is not counted")
        return self.result.environment


@dataclass(frozen=True)
class Scenario:
    """A node's results of one scenario, each from its run."""

    performance: Part | None = None
    accuracy: Part | None = None
    audit: Part | None = None

    @property
    def parts(self) -> list[Part]:
        """The existing parts, each once."""
        found = [part for part in (self.performance, self.accuracy, self.audit) if part is not None]
        return [part for number, part in enumerate(found) if part not in found[:number]]

    @property
    def measured(self) -> LoadGenResult | None:
        """LoadGen's result of the performance run."""
        return self.performance.result.loadgen if self.performance else None


@dataclass(frozen=True)
class Submission:
    """The parts in the runs: a benchmark's scenarios by node, and a sentence for each node that was left out."""

    benchmarks: dict[Benchmark, dict[str, dict[str, Scenario]]]
    """benchmark -> node -> scenario -> results"""
    left_out: tuple[str, ...]

    @property
    def nodes(self) -> list[str]:
        """All nodes, in natural order."""
        return sorted({node for nodes in self.benchmarks.values() for node in nodes}, key=natural)

    def parts(self, node: str) -> list[Part]:
        """Return all parts of a node."""
        scenarios = [one for nodes in self.benchmarks.values() for one in nodes.get(node, {}).values()]
        return [part for scenario in scenarios for part in scenario.parts]


def gather_parts(run_dirs: Iterable[Path], only: Collection[str] = ()) -> Submission:
    """Return the parts in the runs, of all nodes or of those in `only`.

    Raises InputError if a run is not MLPerf's, has no counted node, gives the same part as another run, or if nodes
    differ.
    """
    benchmarks: dict[Benchmark, dict[str, dict[str, Scenario]]] = {}
    left_out: list[str] = []
    asked: set[str] = set()
    for run_dir in dict.fromkeys(path.resolve() for path in run_dirs):
        parts, sentences = _parts(run_dir, only)
        left_out += sentences
        asked |= {part.node for part in parts}
        for part in parts:
            scenarios = benchmarks.setdefault(part.benchmark, {}).setdefault(part.node, {})
            scenarios[part.scenario] = _with(scenarios.get(part.scenario, Scenario()), part)
    if unknown := sorted(set(only) - asked):
        raise InputError(
            f"--node: no result of {', '.join(unknown)} is counted in these runs. {' '.join(left_out)}".rstrip()
        )
    submission = Submission(benchmarks, tuple(left_out))
    _require_like(submission)
    return submission


def _parts(run_dir: Path, only: Collection[str]) -> tuple[list[Part], list[str]]:
    run = read_run(run_dir)
    if run.system is not None:
        raise InputError(
            f"The nodes of the run {run.run_id} are one system, but in a tree each node is a system: name runs "
            "with benchmark_system: node."
        )
    if groups := groups_of(run.nodes):
        raise InputError(
            f"The run {run.run_id} has groups of nodes ({some(sorted(groups, key=natural))}), but here a submission's "
            "system is described by the hardware of one node."
        )
    parts: list[Part] = []
    left_out: list[str] = []
    for node in sorted(run.nodes, key=natural):
        if only and node not in only:
            continue
        options = run.nodes[node].profile.scenario_options
        model = str(options.get("model", "llama3_1-8b"))
        if run.nodes[node].profile.scenario != "loadgen" or model not in OF_MODEL:
            raise InputError(
                f"The run {run.run_id} is of the profile {run.nodes[node].profile.name}, of which MLPerf has no "
                "benchmark: name runs of mlperf-offline, mlperf-server, mlperf-interactive or of the mlperf-edge ones."
            )
        loaded = load_node(run_dir, run, node)
        if not loaded.counted or loaded.result is None:
            why = loaded.refused or (one_line(loaded.failure) if loaded.failure else "no complete result came back")
            left_out.append(f"{node} of the run {run.run_id} is left out: {why.rstrip('.')}.")
            continue
        scenario = "Interactive" if model == INTERACTIVE else str(options.get("scenario"))
        benchmark = OF_MODEL[model]
        if scenario not in benchmark.profiles:
            raise InputError(
                f"The run {run.run_id} is of {scenario}, which {benchmark.name} does not have in MLPerf: "
                f"it has {', '.join(benchmark.profiles)}."
            )
        like = comparison_key(loaded)
        same = {name: like[name] for name in SAME}
        parts.append(Part(run.run_id, node, benchmark, scenario, run_dir / NODES / node, loaded.result, same))
    if not parts and not only:
        raise InputError(f"No node of the run {run.run_id} is counted. {' '.join(left_out)}".rstrip())
    return parts, left_out


def _with(scenario: Scenario, part: Part) -> Scenario:
    result = part.result
    given = {
        "performance": result.loadgen is not None,
        "accuracy": result.accuracy is not None and result.accuracy.loadgen is not None,
        "audit": result.audit is not None,
    }
    for name, there in given.items():
        if not there:
            continue
        before: Part | None = getattr(scenario, name)
        if before is not None:
            raise InputError(
                f"The runs {before.run_id} and {part.run_id} both give the {name} of {part.scenario} on {part.node}: "
                "name one of them."
            )
        scenario = replace(scenario, **{name: part})
    return scenario


def _require_like(submission: Submission) -> None:
    parts: Sequence[Part] = [part for node in submission.nodes for part in submission.parts(node)]
    for part in parts[1:]:
        first = parts[0]
        unlike = [f"{name} {part.same[name] or 'none'}, not {first.same[name] or 'none'}" for name in SAME
                  if part.same[name] != first.same[name]]  # fmt: skip
        if unlike:
            raise InputError(
                f"{part.node} in the run {part.run_id} is unlike {first.node} in the run {first.run_id} "
                f"({'; '.join(unlike)}): a submission's systems must be alike. Name other runs, or nodes with --node."
            )
