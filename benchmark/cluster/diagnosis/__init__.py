"""Which node is slow, and why: findings from a run's like nodes, each with the probable cause and its evidence.

`spread` decides when a value is off, `aspects` which metrics count, `probe_figures` which figures of probes, `slow`
which nodes are slow and `slow_gpus` which GPUs of a node; every other file is one cause with its thresholds.
Formulas and thresholds: docs/metrics.md, Diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmark.cluster.diagnosis.clocks import lower_clocks
from benchmark.cluster.diagnosis.cpu import cpu_starvation
from benchmark.cluster.diagnosis.hardware import slower_hardware
from benchmark.cluster.diagnosis.loading import slow_loading
from benchmark.cluster.diagnosis.memory_errors import memory_errors
from benchmark.cluster.diagnosis.pcie import lower_pcie
from benchmark.cluster.diagnosis.power_limit import lower_power_limit
from benchmark.cluster.diagnosis.slow import Earlier, Shift, slow_nodes
from benchmark.cluster.diagnosis.slow_gpus import SlowPlace, apart, slow_gpus, suspect_of
from benchmark.cluster.diagnosis.software import other_configuration, other_software
from benchmark.cluster.diagnosis.suspect import Rule, Suspect, gpus_seen
from benchmark.cluster.diagnosis.tenants import co_tenant
from benchmark.cluster.diagnosis.throttling import power, thermal
from benchmark.cluster.results.load import LoadedNode
from benchmark.probed import PREFIX
from benchmark.records import Drift, Finding, Group
from benchmark.text.figures import figure
from benchmark.words import percent

__all__ = ["CAUSES", "diagnose", "no_history"]

SLOWER_HARDWARE = "slower hardware"
# The first with evidence is the probable cause: causes come before their consequences (lower clocks), and observed
# events before mere differences.
CAUSES: Mapping[str, Rule] = {
    "thermal throttling": thermal,
    "lower power limit": lower_power_limit,
    "power throttling": power,
    "GPU memory errors": memory_errors,
    "narrower PCIe link": lower_pcie,
    "co-tenant process": co_tenant,
    "CPU starvation": cpu_starvation,
    "lower clocks": lower_clocks,
    SLOWER_HARDWARE: slower_hardware,
    "other software version": other_software,
    "other configuration": other_configuration,
    "slow disk at model load": slow_loading,
}
# Causes that apply to one GPU compared with the others of its node.
GPU_CAUSES = (
    *("thermal throttling", "lower power limit", "power throttling", "GPU memory errors", "narrower PCIe link"),
    *("co-tenant process", "lower clocks"),
)
# Most sentences of evidence in a finding: a node whose software differs in everything would fill a page.
MAX_EVIDENCE = 8


def no_history(node: str) -> Sequence[Mapping[str, float]]:
    """Return no earlier runs of the node."""
    return ()


def diagnose(
    counted: Iterable[LoadedNode], groups: Iterable[Group], drift: Sequence[Drift], earlier: Earlier = no_history
) -> tuple[Finding, ...]:
    """Return findings on slow nodes and slow GPUs, worst first.

    `earlier` gives a node's values in earlier runs of the same kind.
    """
    nodes = {node.node: node for node in counted}
    found: list[tuple[float, Finding]] = []
    for group in groups:
        members = [nodes[name] for name in group.nodes]
        places = slow_gpus(members)
        found += [(one.worst, _of_gpu(one)) for one in places]
        for slow in slow_nodes(members, earlier, apart(places)):
            peers = [node for node in members if node is not slow.node]
            sentences = [words for one in places if one.node is slow.node for words in one.sentences]
            suspect = Suspect(slow.node, peers, drift, slow_gpus=sentences)
            probes_alone = slow.shifts[0].aspect.metric.startswith(PREFIX)
            causes = [name for name in CAUSES if not (probes_alone and name == SLOWER_HARDWARE)]
            # Otherwise probes are part of the evidence.
            shifts = slow.shifts if probes_alone or not peers else _of_queries(slow.shifts)
            worst = max(shift.deviation.badness for shift in slow.shifts)
            found.append((worst, _finding(suspect, shifts, slow.against, causes)))
    return tuple(finding for _, finding in sorted(found, key=lambda pair: -pair[0]))


def _of_queries(shifts: Sequence[Shift]) -> Sequence[Shift]:
    return [shift for shift in shifts if not shift.aspect.metric.startswith(PREFIX)]


def _of_gpu(one: SlowPlace) -> Finding:
    found = _finding(suspect_of(one), one.shifts, one.against, GPU_CAUSES)
    evidence = (*found.evidence, *_renumbered(one))
    return found.model_copy(update={"place": one.place.words, "evidence": evidence})


def _renumbered(one: SlowPlace) -> Iterator[str]:
    """Yield nvidia-smi's numbers of a place's GPUs, if the run numbers them differently."""
    for gpu in gpus_seen(one.node):
        if gpu.index in (one.place.gpu, one.place.peer) and gpu.is_renumbered:
            yield f"GPU {gpu.index} of the run is GPU {gpu.number} of nvidia-smi: CUDA_VISIBLE_DEVICES renumbers them."


def _finding(suspect: Suspect, shifts: Sequence[Shift], against: str, causes: Iterable[str]) -> Finding:
    first, *others = shifts
    evidence = {cause: reported for cause in causes if (reported := list(CAUSES[cause](suspect)))}
    cause = next(iter(evidence), "")
    sentences = [
        sentence if name == cause else f"Also {name}: {sentence}"
        for name, reported in evidence.items()
        for sentence in reported
    ]
    return Finding(
        node=suspect.node.node,
        metric=first.aspect.metric,
        unit=first.aspect.own_unit,
        value=first.value,
        expected=first.deviation.expected,
        change=first.deviation.change,
        against=against,
        also=tuple(_words(shift) for shift in others),
        cause=cause,
        evidence=tuple(sentence[:1000] for sentence in sentences[:MAX_EVIDENCE]),
    )


def _words(shift: Shift) -> str:
    aspect = shift.aspect
    return (
        f"{aspect.label} {figure(shift.value)}{aspect.unit} instead of {figure(shift.deviation.expected)}{aspect.unit} "
        f"({percent(shift.deviation.change, 0)})"
    )
